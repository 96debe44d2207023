"""Requests from their bytes, known heads among them, and answers to bytes."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequestError, PositionConflictError
from service.transport.grpc import messages
from service.transport.grpc.conversion import (
    MAX_TYPED_VALUES,
    parse_message,
    read_request,
    varint,
    write_reply,
    write_stream_error,
    write_stream_reply,
)
from service.transport.grpc.known_heads import KnownHeads
from service.transport.v2.messages import InferReply, OutputTensor


def message(values, *, shape=(1, 3), name="x", datatype="FP32", request_id="", outputs=(), **given):
    """Return a request with one raw input."""
    request = messages.ModelInferRequest(model_name="m", id=request_id)
    for key, value in given.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(request.parameters[key], kind, value)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    for output in outputs:
        request.outputs.add(name=output)
    request.raw_input_contents.append(np.asarray(values, "<f4").tobytes())
    return request


def note_failure(*_):
    """Count nothing."""


def told(asked):
    """Return what a request asks, to compare."""
    request = asked.request
    return (
        asked.is_typed,
        request.model_name,
        request.model_version,
        request.id,
        request.parameters,
        list(request.outputs),
        [(each.name, each.values.shape, each.values.tolist()) for each in request.inputs],
    )


MAX_BYTES = 1 << 20
VALUES = st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)
SENT = st.lists(
    st.tuples(
        VALUES,
        st.integers(1, 3),
        st.sampled_from(["", "", "", "r"]),
        st.sampled_from([(1, 3), (3, 1), (1, 1, 3)]),
        st.sampled_from([(), ("y",)]),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=30)
@given(SENT)
def test_a_known_head_means_what_the_whole_message_means(sent):
    """Whatever was read before it."""
    heads = KnownHeads(note_failure, MAX_BYTES)
    for values, sequence_id, request_id, shape, outputs, start in sent:
        request = message(
            values,
            shape=shape,
            request_id=request_id,
            outputs=outputs,
            sequence_id=sequence_id,
            sequence_start=start,
        )
        data = request.SerializeToString(deterministic=True)
        assert told(read_request(parse_message(data))) == told(heads.read(data))


def test_a_known_head_is_looked_up(monkeypatch):
    """The second message of a kind is not parsed."""
    heads = KnownHeads(note_failure, MAX_BYTES)
    first, second = (message([n, n, n], sequence_id=5).SerializeToString() for n in (1, 2))
    heads.read(first)
    monkeypatch.setattr("service.transport.grpc.known_heads.parse_message", None)
    assert [[2, 2, 2]] == heads.read(second).request.inputs[0].values.tolist()


@settings(max_examples=60)
@given(st.binary(max_size=12), st.integers(0, 60))
def test_what_is_no_whole_message_is_never_known(tail, cut):
    """A message that is cut or has something behind it is read as protobuf reads it."""
    heads = KnownHeads(note_failure, MAX_BYTES)
    data = message([1, 2, 3], sequence_id=5).SerializeToString()
    heads.read(data)
    changed = data[: max(0, len(data) - cut)] + tail
    try:
        expected = told(read_request(parse_message(changed)))
    except InvalidRequestError as error:
        with pytest.raises(InvalidRequestError, match=re.escape(str(error))):
            heads.read(changed)
    else:
        np.testing.assert_equal(told(heads.read(changed)), expected)


def test_heads_are_bounded(monkeypatch):
    """More of them begin anew."""
    monkeypatch.setattr("service.transport.grpc.known_heads.MAX_HEADS", 8)
    heads = KnownHeads(note_failure, MAX_BYTES)
    for sequence_id in range(1, 20):
        heads.read(message([1, 2, 3], sequence_id=sequence_id).SerializeToString())
    assert len(heads._heads) <= 8  # noqa: SLF001


def test_more_values_than_one_looks_at_are_to_be_raw():
    """So that nobody's contents hold up everybody."""
    request = message([], shape=(1, 1, MAX_TYPED_VALUES + 1))
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([0.0] * (MAX_TYPED_VALUES + 1))
    with pytest.raises(InvalidRequestError, match="send more as raw_input_contents"):
        read_request(request)


@given(st.integers(0, 2**40))
def test_numbers_are_written_as_protobuf_writes_them(number):
    """By a message that holds nothing else."""
    written = messages.StatisticDuration(count=number).SerializeToString()
    assert written == (b"\x08" + varint(number) if number else b"")


@settings(max_examples=30)
@given(
    st.text(max_size=200),
    st.integers(1, 200),
    st.booleans(),
    st.dictionaries(st.text(max_size=3), st.one_of(st.booleans(), st.integers(0, 9)), max_size=2),
)
def test_answers_hold_everything(request_id, size, is_typed, parameters):
    """Whichever way they are written, as protobuf reads them."""
    values = np.arange(size, dtype=np.float32)[None]
    reply = InferReply(
        model_name="m",
        model_version="1",
        id=request_id,
        outputs=(OutputTensor(name="y", values=values),),
        parameters=parameters,
    )
    data = write_stream_reply(reply, is_typed=is_typed)
    assert write_reply(reply, is_typed=is_typed) in data
    answer = messages.ModelStreamInferResponse.FromString(data)
    response = answer.infer_response
    assert not answer.error_message
    assert ("m", "1", request_id) == (response.model_name, response.model_version, response.id)
    [tensor] = response.outputs
    assert ("y", "FP32", [1, size]) == (tensor.name, tensor.datatype, list(tensor.shape))
    if is_typed:
        assert not response.raw_output_contents
        assert values[0].tolist() == list(tensor.contents.fp32_contents)
    else:
        assert [values.tobytes()] == list(response.raw_output_contents)
    assert parameters == {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in response.parameters.items()
    }


def test_an_error_in_a_stream_tells_where_the_session_is():
    """Beside the text and the id of the protocol."""
    data = write_stream_error(PositionConflictError(3, 2**52, "no"), "r7")
    answer = messages.ModelStreamInferResponse.FromString(data)
    response = answer.infer_response
    assert "the session is at position 3" in answer.error_message
    assert "r7" == response.id
    assert "position_conflict" == response.parameters["code"].string_param
    assert 3 == response.parameters["position"].int64_param
    assert 2**52 == response.parameters["epoch"].int64_param

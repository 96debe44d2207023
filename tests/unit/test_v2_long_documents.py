"""Long requests of the Open Inference Protocol in slices beside reading them in one piece."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.transport.slices import at_once
from service.transport.v2 import long_documents
from service.transport.v2.http_answers import HEADER_LENGTH
from service.transport.v2.http_requests import InferReader

SPACES = st.sampled_from(["", " ", "\n\t ", "\r\n"])
NUMBERS = st.one_of(
    st.integers(-9, 300).map(str),
    st.floats(width=32).map(json.dumps),
    st.sampled_from(["1e38", "3.5e38", "1e999", "-0", "01", "1.", "true", "null", '"1"', "[1]"]),
)
TENSOR = st.sampled_from(
    [
        '"name":"x"',
        '"name" : "data"',
        '"name":"\\u0078"',
        '"parameters":{"data":[]}',
        '"parameters":{"binary_data_size":8}',
        '"\\u0064ata":[]',
        '"unknown":["]],[["]',
    ]
)
MEMBERS = st.sampled_from(
    [
        '"id":"r"',
        '"parameters":{"sequence_id":3}',
        '"parameters" : {"data":[1,2]}',
        '"outputs":[{"name":"y"}]',
        '"inputs":[]',
        '"inputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1]}]',
        '"unknown":"\\"data\\":[1,2]"',
    ]
)
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace"]),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([*'[]{},:"\\019.-eE tfn', "],[", '"data":[', "é", "\x00"]),
    ),
    max_size=2,
)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch):
    """Every few bytes are a slice."""
    monkeypatch.setattr(long_documents, "_READ_BYTES", 8)


def told(read):
    """Return what comes of a reading, to compare."""
    try:
        request = read().request
    except InvalidRequestError as error:
        return str(error)
    inputs = [(each.name, each.values.shape, each.values.tobytes()) for each in request.inputs]
    return request.id, dict(request.parameters), list(request.outputs), inputs


def both(body, headers):
    """Return what comes of a body in slices, and in one piece."""
    sliced, whole = InferReader("m", ""), InferReader("m", "")
    return (
        told(lambda: at_once(sliced.read_in_slices(headers, body))),
        told(lambda: whole.read(headers, body)),
    )


@st.composite
def bodies(draw):
    """Bodies that are mostly good, and damaged ones."""
    numbers = draw(st.lists(st.integers(-9, 9).map(str) | st.just("0.5"), min_size=1, max_size=30))
    if draw(st.integers(0, 3)) == 0:
        numbers = draw(st.lists(NUMBERS, max_size=12))
    fits = [[len(numbers)], [1, len(numbers)], [1, 1, len(numbers)]]
    shape = draw(st.sampled_from([*fits, *fits, [2, 3], [0], [[1]], "x"]))
    datatype = draw(st.sampled_from([*["FP32"] * 9, "INT32", "UINT8", "BF16", "FP64", "BYTES"]))
    space = draw(SPACES)
    comma = f"{space},{space}"
    data = comma.join(numbers)
    if draw(st.booleans()):
        rows = [numbers[at : at + 2] for at in range(0, len(numbers), 2)]
        data = comma.join(f"[{comma.join(row)}{space}]" for row in rows)
        shape = draw(st.sampled_from([[len(rows), 2], [1, len(rows), 2], shape]))
        data = f"[{data}]" if len(shape) == 3 else data
    tensor = [
        '"name":"x"',
        f'"shape":{json.dumps(shape)}',
        f'"datatype":"{datatype}"',
        f'"data"{space}:{space}[{space}{data}{space}]',
        *draw(st.lists(TENSOR, max_size=1)),
    ]
    tensors = [",".join(draw(st.permutations(tensor)))] * draw(st.sampled_from([1, 1, 2]))
    members = [
        f'"inputs":[{",".join(f"{{{each}}}" for each in tensors)}]',
        *draw(st.lists(MEMBERS, max_size=2)),
    ]
    text = f"{space}{{{f'{space},'.join(draw(st.permutations(members)))}}}"
    for how, where, what in draw(DAMAGE) if draw(st.booleans()) else []:
        at = int(where * len(text))
        end = at + 1 if how != "insert" else at
        text = text[:at] + (what if how != "delete" else "") + text[end:]
    return text.encode()


def good(**changes):
    """Return a request of forty numbers."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [40], "data": list(range(40))}
    document = {"id": "r", "inputs": [tensor | changes]}
    return json.dumps(document, separators=(",", ":")).encode()


ELSEWHERE = (
    b'{"parameters":{"data":[1,2]},"inputs":[{"name":"x","datatype":"FP32","shape":[2],%b:[]}]}'
)
"""Numbers that are not the input's, whose own are missing."""


TWO = (
    b'{"inputs":[{"name":"a","datatype":"FP32","shape":[2,1],"data":[1,2]},{"name":"b",'
    b'"datatype":"INT32","shape":[2,2],"parameters":{},"data":[[4,5],[6,7]]}]}'
)
"""Two inputs, one flat and one nested."""


@settings(deadline=None, max_examples=400)
@given(bodies(), st.sampled_from([b"", b"\0" * 8]))
@example(good(data=[[1, 2], [3, 4]], shape=[2, 2]), b"")
@example(good(data=[[1, 2], [3, 4, 5]], shape=[2, 2]), b"")
@example(good(data=[[1, 2], [3], [4]], shape=[2, 2]), b"")
@example(good(data=[[[1, 2]], [[3, 4]]], shape=[2, 2]), b"")
@example(good(data=[[[1, 2]], [[3, 4]]], shape=[2, 1, 2]), b"")
@example(good(data=[[1, 2], [3, 4]], shape=[10**9, 10**9]), b"")
@example(good(data=[[1, 2], [3, 4]], shape=[2, 2]).replace(b"3,", b"3],["), b"")
@example(good(data=[[1, 2], [3, 4]], shape=[2, 2]).replace(b"],[", b"][,"), b"")
@example(good(data=[[1, 2], [3, 4]], shape=[2, 2]).replace(b"[3,", b"3[,"), b"")
@example(good(data=[[1, 2], [3, 4]], shape=[2, 2]).replace(b"[3,", b"[3 4,"), b"")
@example(good(data=[["1,2", 3]], shape=[1, 2]), b"")
@example(good(data=[[[[[[[[[1]]]]]]]]], shape=[1] * 9), b"")
@example(TWO, b"")
@example(TWO.replace(b'"data":[[4', b'"other":[[4'), b"")
@example(TWO.replace(b'"name":"b"', b'"name":"b","data":[1]'), b"")
@example(good(shape=[41]), b"")
@example(good(shape=[-4, -10]), b"")
@example(good(shape=[40, *[1] * 8]), b"")
@example(good(datatype="UINT8", shape=[4, 10]), b"")
@example(good() + b" 1", b"")
@example(good(shape=[2, 20]), b"\0")
@example(good().replace(b"}]", b',"data":[]}]'), b"")
@example(ELSEWHERE % b'"data"', b"")
@example(ELSEWHERE % rb'"\u0064ata"', b"")
def test_slices_read_what_one_piece_reads(json_, behind):
    """The same request, or the same error."""
    headers = {HEADER_LENGTH: b"%d" % len(json_)} if behind else {}

    sliced, whole = both(json_ + behind, headers)

    assert whole == sliced


NESTED = np.arange(40).reshape(4, 10).tolist()


@pytest.mark.parametrize(
    "body",
    [
        good(shape=[4, 10]),
        good(shape=[4, 10], name="data"),
        good(shape=[4, 10], data=NESTED),
        good(shape=[4, 10], data=NESTED).replace(b",", b" ,\n").replace(b"]", b" ]\t"),
    ],
)
def test_the_plain_form_is_cut(monkeypatch, body):
    """It is not parsed in one piece behind everybody's back; `None` is what has another form."""
    monkeypatch.setattr(InferReader, "read", None)
    reader = InferReader("m", "")

    assert sum(1 for _ in reader.read_in_slices({}, body)) > 10
    [tensor] = at_once(reader.read_in_slices({}, body)).request.inputs
    np.testing.assert_array_equal(np.arange(40).reshape(4, 10), tensor.values)


def test_several_inputs_are_cut():
    """Each in its own form."""
    document = at_once(long_documents.parse_in_slices(TWO))
    assert document is not None
    first, second = (tensor["data"] for tensor in document["inputs"])
    np.testing.assert_array_equal([[1], [2]], first)
    np.testing.assert_array_equal([[4, 5], [6, 7]], second)


@pytest.mark.parametrize("body", [b"{}", good(data=[[1]]), good(data="x"), b'"data":['])
def test_other_forms_are_left_alone(body):
    """For the code that says what is wrong with them, or takes them."""
    assert at_once(long_documents.parse_in_slices(body)) is None

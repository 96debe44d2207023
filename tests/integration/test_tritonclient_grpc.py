"""NVIDIA's client for the Open Inference Protocol, unmodified, against a live server over gRPC."""

import numpy as np
import pytest

from service import __version__
from tests.integration.live_server import free_port, live_server
from tests.integration.triton_visit import NUM_SEQUENCES, NUM_STEPS, TOLERANCE, visit


@pytest.fixture(scope="module")
def told(bench_model):
    """What the client tells."""
    port = free_port()
    with live_server("--model", f"bench={bench_model}", "--grpc-port", str(port)):
        return visit("triton_grpc_script", f"127.0.0.1:{port}")


def test_what_the_server_tells_of_itself(told):
    """With the names that the model's file gives."""
    about = told["about"]
    assert [True, True, True, True, False] == [
        about[name] for name in ("live", "ready", "model_ready", "version_ready", "other_ready")
    ]
    assert ("lstm-service", __version__) == (about["server"]["name"], about["server"]["version"])
    assert {"sequence", "sequence(string_id)", "statistics"} <= set(about["server"]["extensions"])
    assert {
        "name": "bench",
        "versions": ["1"],
        "platform": "lstm_service",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": ["-1", "32"]}],
        "outputs": [{"name": "head", "datatype": "FP32", "shape": ["-1", "8"]}],
    } == about["model"]
    config = about["config"]["config"]
    assert ("bench", 1) == (config["name"], config["max_batch_size"])
    assert "sequence_batching" in config
    assert [{"name": "input", "data_type": "TYPE_FP32", "dims": ["32"]}] == config["input"]
    assert [{"name": "head", "data_type": "TYPE_FP32", "dims": ["8"]}] == config["output"]
    index = [{"name": "bench", "version": "1", "state": "READY"}]
    assert index == about["index"]["models"]


@pytest.mark.parametrize("kind", ["integer", "string", "gzip", "deflate"])
def test_sequences(told, bench_outputs, kind):
    """With either kind of id, and compressed."""
    np.testing.assert_allclose(told[kind], bench_outputs[0], **TOLERANCE)


def test_typed_contents(told, bench_outputs):
    """Of a step, by the client's own generated classes."""
    assert "typed" == told["typed"]["id"]
    np.testing.assert_allclose(told["typed"]["outputs"], bench_outputs[0][0], **TOLERANCE)


def test_several_steps_in_one_request_and_batches_without_a_sequence(told, bench_outputs):
    """`[1, time, features]` of a sequence, and `[batch, time, features]` of none."""
    np.testing.assert_allclose(told["several"], bench_outputs[:1], **TOLERANCE)
    np.testing.assert_allclose(told["batch"], bench_outputs, **TOLERANCE)


def test_retries_with_a_position(told):
    """Each step and its retry, the one that ends the sequence too."""
    answers = [(told["position"], told["replayed"]) for told in told["retries"]]
    assert [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True)] == answers


def test_a_stream_of_interleaved_sequences(told, bench_outputs):
    """Answers keep the order of their requests; an error stands in its place and ends nothing."""
    answers = iter(told["streamed"])
    for t in range(NUM_STEPS):
        for n in range(NUM_SEQUENCES):
            request_id, outputs = next(answers)
            assert f"{n}-{t}" == request_id
            np.testing.assert_allclose(outputs, bench_outputs[n][t], **TOLERANCE)
        request_id, message = next(answers)
        assert request_id is None
        assert "expected the shape [1, 32]" in message


def test_errors_have_the_words_of_the_protocol(told):
    """By the code and in words."""
    errors = told["errors"]
    unknown = (
        "inference request for sequence 77 to model 'bench' must specify the START flag on the"
        " first request of the sequence"
    )
    assert ["StatusCode.INVALID_ARGUMENT", unknown] == errors["unknown sequence"]
    assert {
        "unknown sequence": "INVALID_ARGUMENT",
        "unknown model": "NOT_FOUND",
        "shape": "INVALID_ARGUMENT",
        "far start": "INVALID_ARGUMENT",
        "regions": "UNIMPLEMENTED",
        "trace": "UNIMPLEMENTED",
        "log": "UNIMPLEMENTED",
        "load": "FAILED_PRECONDITION",
        "unload": "FAILED_PRECONDITION",
    } == {what: status.removeprefix("StatusCode.") for what, (status, _) in errors.items()}


def test_statistics_count_what_was_asked(told):
    """Requests that were answered, and those that were not."""
    before, after = (each["model_stats"][0] for each in told["statistics"])

    def grown(name):
        counts = [int(each["inference_stats"][name].get("count", 0)) for each in (before, after)]
        return counts[1] - counts[0]

    # A batch; four sequences; typed and several; three steps twice; what was streamed.
    assert 1 + 4 * NUM_STEPS + 2 + 6 + NUM_SEQUENCES * NUM_STEPS == grown("success")
    assert NUM_STEPS + 3 == grown("fail")


def test_many_sequences_at_once_by_the_client_of_asyncio(told, bench_outputs):
    """Unary, and over a stream."""
    np.testing.assert_allclose(told["interleaved"]["unary"], bench_outputs, **TOLERANCE)
    np.testing.assert_allclose(told["interleaved"]["streamed"], bench_outputs[0], **TOLERANCE)

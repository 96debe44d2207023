"""NVIDIA's client for the Open Inference Protocol, unmodified, against a live server over gRPC."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_model import expected_outputs, write_bench_model

from service import __version__
from tests.integration.live_server import free_port, live_server

SCRIPT = Path(__file__).with_name("triton_grpc_script.py")
NUM_SEQUENCES, NUM_STEPS = 8, 4
TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model's file, in which the input is called `input` and the output `head`."""
    path = tmp_path_factory.mktemp("model") / "bench.keras"
    write_bench_model(path)
    return path


@pytest.fixture(scope="module")
def sequences():
    """Inputs, `(sequences, time, 32)` float32."""
    values = np.random.default_rng(6).uniform(-1, 1, (NUM_SEQUENCES, NUM_STEPS, 32))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def expected(model, sequences):
    """What the equations give for them, `(sequences, time, 8)`."""
    return np.stack([expected_outputs(model, each) for each in sequences])


@pytest.fixture(scope="module")
def told(model, sequences):
    """What the client tells."""
    port = free_port()
    with live_server("--model", f"bench={model}", "--grpc-port", str(port)):
        result = subprocess.run(
            [sys.executable, SCRIPT, f"127.0.0.1:{port}"],
            input=json.dumps(sequences.tolist()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert 0 == result.returncode, result.stderr
    return json.loads(result.stdout)


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
def test_sequences(told, expected, kind):
    """With either kind of id, and compressed."""
    np.testing.assert_allclose(told[kind], expected[0], **TOLERANCE)


def test_typed_contents(told, expected):
    """Of a step, by the client's own generated classes."""
    assert "typed" == told["typed"]["id"]
    np.testing.assert_allclose(told["typed"]["outputs"], expected[0][0], **TOLERANCE)


def test_several_steps_in_one_request_and_batches_without_a_sequence(told, expected):
    """`[1, time, features]` of a sequence, and `[batch, time, features]` of none."""
    np.testing.assert_allclose(told["several"], expected[:1], **TOLERANCE)
    np.testing.assert_allclose(told["batch"], expected, **TOLERANCE)


def test_retries_with_a_position(told):
    """Each step and its retry, the one that ends the sequence too."""
    assert [[p, again] for p in (1, 2, 3) for again in (False, True)] == told["retries"]


def test_a_stream_of_interleaved_sequences(told, expected):
    """Answers keep the order of their requests; an error stands in its place and ends nothing."""
    answers = iter(told["streamed"])
    for t in range(NUM_STEPS):
        for n in range(NUM_SEQUENCES):
            request_id, outputs = next(answers)
            assert f"{n}-{t}" == request_id
            np.testing.assert_allclose(outputs, expected[n][t], **TOLERANCE)
        request_id, message = next(answers)
        assert request_id is None
        assert "expected the shape [1, 32]" in message


def test_errors(told):
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
        "gap": "INVALID_ARGUMENT",
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


def test_many_sequences_at_once_by_the_client_of_asyncio(told, expected):
    """Unary, and over a stream."""
    np.testing.assert_allclose(told["interleaved"]["unary"], expected, **TOLERANCE)
    np.testing.assert_allclose(told["interleaved"]["streamed"], expected[0], **TOLERANCE)

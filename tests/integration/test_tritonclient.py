"""NVIDIA's client for the Open Inference Protocol, unmodified, against a live server over HTTP."""

import numpy as np
import pytest

from service import __version__
from tests.integration.live_server import live_server
from tests.integration.triton_visit import NUM_SEQUENCES, NUM_STEPS, TOLERANCE, visit


@pytest.fixture(scope="module")
def told(bench_model):
    """What the client tells."""
    with live_server("--model", f"bench={bench_model}") as server:
        return visit("triton_script", server.url.removeprefix("http://"))


def test_metadata_has_the_names_that_the_file_gives(told):
    """The server, the model and its configuration, with the names that the file gives."""
    about = told["about"]
    assert about["live"]
    assert about["ready"]
    assert about["model_ready"]
    assert about["version_ready"]
    assert not about["other_ready"]
    assert {
        "name": "lstm-service",
        "version": __version__,
        "extensions": [
            "sequence",
            "sequence(string_id)",
            "binary_tensor_data",
            "parameters",
            "statistics",
            "model_configuration",
            "model_repository",
        ],
    } == about["server"]
    assert {
        "name": "bench",
        "versions": ["1"],
        "platform": "lstm_service",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 32]}],
        "outputs": [{"name": "head", "datatype": "FP32", "shape": [-1, 8]}],
    } == about["model"]
    assert about["model"] == told["interleaved"]["model"]
    index = [{"name": "bench", "version": "1", "state": "READY", "reason": ""}]
    assert index == about["index"]
    config = about["config"]
    assert ("bench", 1) == (config["name"], config["max_batch_size"])
    assert "sequence_batching" in config
    [given], [gives] = config["input"], config["output"]
    assert ("input", "TYPE_FP32", [32]) == (given["name"], given["data_type"], given["dims"])
    assert ("head", "TYPE_FP32", [8]) == (gives["name"], gives["data_type"], gives["dims"])


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_sequences_with_either_kind_of_id(told, bench_outputs, kind):
    """Step by step, with start and end."""
    np.testing.assert_allclose(told[kind], bench_outputs[0], **TOLERANCE)


def test_every_form_gives_the_same(told, bench_outputs):
    """Binary or not, compressed or not; with exactly the members that the protocol has."""
    assert 18 == len(told["forms"])
    for form, answer in told["forms"].items():
        np.testing.assert_allclose(
            answer["outputs"], bench_outputs[0][:1], **TOLERANCE, err_msg=form
        )
        binary_in, binary_out, _ = form.split()
        assert ["id", "model_name", "model_version", "outputs"] == answer["members"]
        holds = "data" if binary_out == "False" else "parameters"
        assert sorted(["datatype", "name", "shape", holds]) == answer["output_members"]
        assert answer["id"] == ("r0" if binary_in == "True" else "r1")


def test_several_steps_in_one_request_and_batches_without_a_sequence(told, bench_outputs):
    """`[1, time, features]` of a sequence, and `[batch, time, features]` of none."""
    np.testing.assert_allclose(told["several"], bench_outputs[:1], **TOLERANCE)
    for kind in ("batch", "queried", "async"):
        np.testing.assert_allclose(told[kind], bench_outputs, **TOLERANCE)


def test_interleaved_sequences_do_not_mix(told, bench_outputs):
    """Many at once by the asynchronous client, half of them named by strings."""
    np.testing.assert_allclose(told["interleaved"]["outputs"], bench_outputs, **TOLERANCE)


def test_steps_that_name_their_position_are_applied_once(told):
    """A retry of the start, of a step between, and of the end."""
    answers = [(told["position"], told["replayed"]) for told in told["retries"]]
    assert [(1, False), (1, True), (2, False), (2, True), (3, False), (3, True)] == answers


def test_errors_have_the_words_of_the_protocol(told):
    """Each with the status and in the words of the protocol."""
    errors = told["errors"]
    unknown = (
        "inference request for sequence {} to model 'bench' must specify the START flag on the"
        " first request of the sequence"
    )
    assert ["400", unknown.format(77)] == errors["unknown sequence"]
    assert ["400", unknown.format("seventy-seven")] == errors["unknown string"]
    statuses = {name: status for name, (status, _) in errors.items()}
    assert {
        "unknown sequence": "400",
        "unknown string": "400",
        "unknown model": "404",
        "shape": "400",
        "rounded": "400",
        "far start": "400",
        "shared memory": "400",
        "regions": "404",
        "load": "400",
        "unload": "400",
    } == statuses
    assert "expected the shape [1, 32]" in errors["shape"][1]
    assert "send FP32" in errors["rounded"][1]
    assert "shared memory is not served" in errors["shared memory"][1]
    assert "none of a model repository" in errors["load"][1]


def test_statistics_count_what_was_done(told):
    """Requests by their outcome, and rows; executions are no more than the steps were."""
    [before], [after] = (each["model_stats"] for each in told["statistics"])
    assert {
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "batch_stats",
    } == after.keys()
    assert 0 == before["inference_count"] == before["execution_count"]
    num_steps = 2 * NUM_STEPS + 6 + 18 + 1
    stats = after["inference_stats"]
    assert num_steps + 3 == stats["success"]["count"]
    assert num_steps + 3 * NUM_SEQUENCES == after["inference_count"]
    # Whatever named the model.
    assert 6 == stats["fail"]["count"]
    assert after["last_inference"] > 1.6e12
    assert {"count": 0, "ns": 0} == stats["cache_hit"] == stats["cache_miss"]
    assert stats["queue"]["ns"] + stats["compute_infer"]["ns"] <= stats["success"]["ns"] + 1000
    # One client that waits for each answer: every step is a kernel call of its own, no retry is.
    batches = {entry["batch_size"]: entry["compute_infer"] for entry in after["batch_stats"]}
    assert {1, NUM_SEQUENCES} == batches.keys()
    assert (num_steps - 3, 3) == (batches[1]["count"], batches[NUM_SEQUENCES]["count"])
    assert num_steps == after["execution_count"]
    assert all(entry["ns"] > 0 for entry in batches.values())

    [later] = told["interleaved"]["statistics"]["model_stats"]
    assert NUM_SEQUENCES * NUM_STEPS == later["inference_count"] - after["inference_count"]

"""Whether servers compute what the equations say, and have applied what the generator sent.

A benchmark of wrong answers is worth nothing: each figure asks here before or after it measures.
"""

from __future__ import annotations

import json
import struct
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_model import INPUT_SIZE, OUTPUT_SIZE, expected_outputs
from setting import as_json, as_numbers, random_inputs
from websockets.sync.client import connect

NUM_STEPS = 6
TOLERANCE = 1e-5
BINARY_STEPS = "application/vnd.lstm-steps"
V2_PATH = "/v2/models/bench/infer"


class DisagreementError(AssertionError):
    """A server has given other numbers than it should, or has not applied what it answered."""


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    content_type: str = "application/json",
    headers: Mapping[str, object] | None = None,
) -> bytes:
    """Return the answer to a POST, or without a body to a GET.

    Raises:
        urllib.error.HTTPError: The status is another one than 200 or 201.
    """
    given = {name: str(value) for name, value in (headers or {}).items()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"content-type": content_type} | given
    )
    with urllib.request.urlopen(request) as answer:
        received: bytes = answer.read()
    return received


def compare(what: str, outputs: npt.ArrayLike, expected: npt.NDArray[np.float64]) -> None:
    """Compare outputs with those that the equations give.

    Raises:
        DisagreementError: They differ by more than rounding.
    """
    got = np.asarray(outputs, np.float64)
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=0, atol=TOLERANCE):
        raise DisagreementError(f"{what} gives other numbers than the equations:\n{got}")


def check_step(what: str, port: int, model: Path) -> None:
    """Step a new session, by the route that service and peers share.

    Raises:
        DisagreementError: The outputs are wrong.
    """
    inputs = random_inputs(NUM_STEPS, seed=1)
    outputs = []
    for values in as_numbers(inputs):
        answer = ask(port, "/v1/sessions/agreement-step/step", as_json({"inputs": values}))
        outputs.append(json.loads(answer)["outputs"])
    compare(what, outputs, expected_outputs(model, inputs))


def check_sequence(port: int, model: Path) -> None:
    """Post a sequence; raises `DisagreementError`."""
    inputs = random_inputs(40, seed=2)
    body = as_json({"inputs": as_numbers(inputs)})
    answer = json.loads(ask(port, "/v1/sessions/agreement-sequence/sequence", body))
    compare("a sequence", answer["outputs"], expected_outputs(model, inputs))


def check_stream(port: int, model: Path) -> None:
    """Step a session by binary frames; raises `DisagreementError`."""
    inputs = random_inputs(NUM_STEPS, seed=3)
    url = f"ws://127.0.0.1:{port}/v1/sessions/agreement-stream/stream"
    with connect(url) as stream:
        stream.recv()
        for values in inputs:
            stream.send(values.astype("<f4").tobytes())
        frames = [stream.recv() for _ in inputs]
    outputs = [np.frombuffer(f, "<f4") for f in frames if isinstance(f, bytes)]
    compare("a stream", outputs, expected_outputs(model, inputs))


def check_steps(port: int, model: Path) -> None:
    """Step two sessions by `steps` in JSON; raises `DisagreementError`."""
    inputs = random_inputs(2 * NUM_STEPS, seed=4).reshape(NUM_STEPS, 2, -1)
    ids = ["agreement-steps-0", "agreement-steps-1"]
    outputs = []
    for rows in inputs:
        body = as_json({"client_ids": ids, "inputs": as_numbers(rows)})
        outputs.append(json.loads(ask(port, "/v1/models/bench/steps", body))["outputs"])
    for row in range(2):
        expected = expected_outputs(model, inputs[:, row])
        compare("steps", np.asarray(outputs)[:, row], expected)


def binary_steps(client_ids: Sequence[str], inputs: npt.NDArray[np.float32]) -> bytes:
    """Return the binary body of one step of many sessions.

    Args:
        client_ids: `(rows,)`.
        inputs: `(rows, INPUT_SIZE)` float32.
    """
    head = struct.pack("<II", len(client_ids), 0)
    return head + inputs.astype("<f4").tobytes() + "\n".join(client_ids).encode()


def binary_outputs(answer: bytes) -> npt.NDArray[np.float32]:
    """Return the outputs `(rows, output_size)` float32 of an answer to a binary body.

    Before them stand two u32, the number of rows and the size of an output, then for each row an
    i64 position, a u64 epoch, a u16 status and a u8, and zeros up to a multiple of 4 bytes.

    Raises:
        DisagreementError: A row has another status than 200.
    """
    num_rows, output_size = struct.unpack_from("<II", answer)
    statuses = np.frombuffer(answer, "<u2", num_rows, 8 + 16 * num_rows)
    if (statuses != 200).any():
        raise DisagreementError(f"rows failed: {statuses.tolist()}")
    narrow = 3 * num_rows
    start = 8 + 16 * num_rows + narrow + -narrow % 4
    outputs = np.frombuffer(answer, "<f4", num_rows * output_size, start)
    return outputs.reshape(num_rows, output_size)


def check_binary_steps(port: int, model: Path) -> None:
    """Step three sessions by `steps` in binary.

    Raises:
        DisagreementError: The outputs are wrong.
        urllib.error.HTTPError: The service does not take this body.
    """
    num_rows = 3  # odd, so that there is padding in the answer
    inputs = random_inputs(num_rows * NUM_STEPS, seed=5).reshape(NUM_STEPS, num_rows, -1)
    ids = [f"agreement-binary-{row}" for row in range(num_rows)]
    outputs = np.stack(
        [
            binary_outputs(ask(port, "/v1/models/bench/steps", binary_steps(ids, x), BINARY_STEPS))
            for x in inputs
        ]
    )
    for row in range(num_rows):
        compare("binary steps", outputs[:, row], expected_outputs(model, inputs[:, row]))


def v2_request(
    inputs: npt.NDArray[np.float32], sequence_id: int, *, is_binary: bool, starts: bool = False
) -> tuple[str, bytes, str, dict[str, int]]:
    """Return a step by the Open Inference Protocol as NVIDIA's client sends it.

    Args:
        inputs: `(1, INPUT_SIZE)` float32.
        sequence_id: Whose step; not 0.
        is_binary: Whether tensors are in binary, there and back.
        starts: Whether the sequence begins with it.

    Returns:
        Path, body, content type and further headers.
    """
    flags = {"sequence_start": starts, "sequence_end": False}
    tensor: dict[str, object] = {"name": "input", "shape": [1, INPUT_SIZE], "datatype": "FP32"}
    parameters = {"sequence_id": sequence_id, **flags, "binary_data_output": is_binary}
    if not is_binary:
        tensor["data"] = as_numbers(inputs[0])
        body = as_json({"inputs": [tensor], "parameters": parameters})
        return V2_PATH, body, "application/json", {}
    blob = inputs.astype("<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(blob)}
    head = as_json({"inputs": [tensor], "parameters": parameters})
    headers = {"inference-header-content-length": len(head)}
    return V2_PATH, head + blob, "application/octet-stream", headers


def begin_v2(port: int, sequence_ids: Iterable[int]) -> None:
    """Begin sequences, each with a step."""
    inputs = random_inputs(1, seed=6)
    for sequence_id in sequence_ids:
        ask(port, *v2_request(inputs, sequence_id, is_binary=True, starts=True))


def check_v2(port: int, model: Path, *, is_binary: bool) -> None:
    """Step a sequence by the Open Inference Protocol; raises `DisagreementError`."""
    inputs = random_inputs(NUM_STEPS, seed=7)
    outputs = []
    for t, values in enumerate(inputs[:, None]):
        request = v2_request(values, 2**40, is_binary=is_binary, starts=t == 0)
        answer = ask(port, *request)
        if is_binary:
            outputs.append(np.frombuffer(answer[-4 * OUTPUT_SIZE :], "<f4"))
        else:
            outputs.append(np.array(json.loads(answer)["outputs"][0]["data"], np.float32))
    what = f"the Open Inference Protocol in {'binary' if is_binary else 'JSON'}"
    compare(what, outputs, expected_outputs(model, inputs))


def num_applied(port: int, client_ids: Sequence[str]) -> int:
    """Return how many steps sessions have had, by their positions."""
    looks = [json.loads(ask(port, f"/v1/sessions/{client_id}")) for client_id in client_ids]
    positions: list[Any] = [look["position"] for look in looks]
    return sum(positions)


def check_applied(port: int, client_ids: Sequence[str], num_answers: int) -> None:
    """Compare the positions of sessions with the answers that the generator got.

    Raises:
        DisagreementError: A step was applied and not answered, or the other way round.
    """
    applied = num_applied(port, client_ids)
    if applied != num_answers:
        raise DisagreementError(f"{num_answers:,} steps were answered and {applied:,} applied")

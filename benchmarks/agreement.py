"""Whether servers compute what the equations say, and have applied what the generator sent.

A benchmark of wrong answers is worth nothing: each figure asks here before or after it measures.
"""

from __future__ import annotations

import json
import struct
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from bench_model import expected_outputs
from grpc_load import SERVICE as GRPC_SERVICE
from grpc_load import step_message
from setting import as_json, as_numbers, random_inputs
from websockets.sync.client import connect

from service.transport.grpc import messages

NUM_STEPS = 6
TOLERANCE = 1e-5
BINARY_STEPS = "application/vnd.lstm-steps"


class DisagreementError(AssertionError):
    """A server has given other numbers than it should, or has not applied what it answered."""


def ask(
    port: int, path: str, body: bytes | None = None, content_type: str = "application/json"
) -> bytes:
    """Return the answer to a POST, or without a body to a GET.

    Raises:
        urllib.error.HTTPError: The status is another one than 200 or 201.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"content-type": content_type}
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


def check_grpc(port: int, model: Path) -> None:
    """Step a sequence over gRPC, by calls and by a stream in turns; raises `DisagreementError`."""
    inputs = random_inputs(NUM_STEPS, seed=6)
    steps = [step_message(999_999, x, starts=t == 0) for t, x in enumerate(inputs)]
    outputs = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(f"{GRPC_SERVICE}/ModelInfer")
        stream: Any = channel.stream_stream(f"{GRPC_SERVICE}/ModelStreamInfer")
        for t, step in enumerate(steps):
            if t % 2:
                response = messages.ModelInferResponse.FromString(call(step))
            else:
                [answer] = stream(iter([step]))
                response = messages.ModelStreamInferResponse.FromString(answer).infer_response
            outputs.append(np.frombuffer(response.raw_output_contents[0], "<f4"))
    compare("gRPC", outputs, expected_outputs(model, inputs))


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

"""The documents that the REST API answers with, for the OpenAPI document and for tests.

Nothing is validated against them at run time: `render` writes these shapes directly.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.transport.schema import Epoch, Position

_EPOCH = 5102375120932
_FINGERPRINT = "9f2c41d0…"


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


def _example(document: dict[str, Any]) -> ConfigDict:
    return ConfigDict(strict=True, extra="forbid", json_schema_extra={"examples": [document]})


class StepReply(_Reply):
    """The outputs of one time step."""

    model_config = _example(
        {"outputs": [0.1, -0.2], "position": 42, "epoch": _EPOCH, "replayed": False}
    )
    outputs: list[float] = Field(description="`[features]`.")
    position: Position
    epoch: Epoch
    replayed: bool = Field(description="Whether this is the answer of an earlier, equal request.")
    states: list[list[float]] = Field([], description="h, c of every layer, if asked for.")


class SequenceReply(_Reply):
    """The outputs of many time steps."""

    model_config = _example(
        {"outputs": [[0.1, -0.2], [0.3, 0.1]], "position": 2, "epoch": _EPOCH, "replayed": False}
    )
    outputs: list[list[float]] | list[float] = Field(
        description="`[time][features]`, or `[features]` without `return_sequences`."
    )
    position: Position
    epoch: Epoch
    replayed: bool = Field(description="Whether this is the answer of an earlier, equal request.")
    states: list[list[float]] = Field([], description="h, c of every layer, if asked for.")


class PredictReply(_Reply):
    """What the model's file gives for whole sequences."""

    model_config = _example({"outputs": [[[0.1, -0.2], [0.3, 0.1]]]})
    outputs: list[list[list[float]]] | list[list[float]] = Field(
        description="`[batch][time][features]`, or `[batch][features]` where the file says so."
    )


class ForecastReply(_Reply):
    """The outputs of the steps of a forecast, and where the session is, as before."""

    model_config = _example({"outputs": [[0.1, -0.2], [0.3, 0.1]], "position": 2, "epoch": _EPOCH})
    outputs: list[list[float]] = Field(description="`[steps][features]`.")
    position: Position
    epoch: Epoch


class RowError(_Reply):
    """Why one row failed. Nothing of it was applied."""

    code: str
    message: str
    position: Position | None = None
    epoch: Epoch | None = None


class StepsReply(_Reply):
    """One answer a row: either an error, or everything else."""

    model_config = _example(
        {
            "outputs": [[0.1, -0.2], None],
            "positions": [42, None],
            "epochs": [_EPOCH, None],
            "replayed": [False, False],
            "errors": [None, {"code": "invalid_request", "message": "inputs: expected 2 numbers"}],
        }
    )
    outputs: list[list[float] | None]
    positions: list[Position | None]
    epochs: list[Epoch | None]
    replayed: list[bool]
    errors: list[RowError | None]


class ResetReply(_Reply):
    """The new life of a session."""

    model_config = _example({"position": 0, "epoch": _EPOCH})
    position: Position
    epoch: Epoch


class SessionDocument(_Reply):
    """Where a session is."""

    model_config = _example(
        {
            "client_id": "pump-1",
            "position": 42,
            "epoch": _EPOCH,
            "fingerprint": _FINGERPRINT,
            "ttl_s": 3600.0,
        }
    )
    client_id: str
    position: Position
    epoch: Epoch
    fingerprint: str
    ttl_s: float | None = Field(
        description="How long after its last applied request it ends, in seconds; null: never."
    )


class StateDocument(_Reply):
    """A session's whole state: PUT it back, into this session or another one."""

    model_config = _example(
        {
            "position": 42,
            "epoch": _EPOCH,
            "fingerprint": _FINGERPRINT,
            "states": [[0.0, 0.1], [0.0, 0.2]],
            "has_output": [True],
        }
    )
    position: Position
    epoch: Epoch
    fingerprint: str
    states: list[list[float]] = Field(description="h and c of every layer, in Keras's order.")
    has_output: list[bool] = Field(
        description="For each recurrent layer, whether it has had a live step since its state was"
        " set: only then does a masked step repeat its output."
    )


class SessionLine(_Reply):
    """A session in the list."""

    client_id: str
    position: Position
    epoch: Epoch


class SessionList(_Reply):
    """A page of sessions."""

    model_config = _example(
        {
            "sessions": [{"client_id": "pump-1", "position": 42, "epoch": _EPOCH}],
            "next": None,
        }
    )
    sessions: list[SessionLine]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")


class StateVectorDocument(_Reply):
    """One vector of `states`."""

    layer: str
    role: str = Field(description="h or c; of other cells state_0 and so on, then output.")
    size: int


class TensorDocument(_Reply):
    """A part of a time step's values: one of the model's inputs or outputs."""

    name: str
    offset: int
    size: int
    vocabulary: int | None = Field(description="Integers below it; null: real numbers.")


class LayerDocument(_Reply):
    """A layer of a model."""

    name: str
    kind: str
    output_size: int
    kernel: str | None
    device: str | None
    reason: str | None


class ModelDocument(_Reply):
    """What a model takes and gives."""

    model_config = _example(
        {
            "name": "gait",
            "version": "1",
            "fingerprint": _FINGERPRINT,
            "input_size": 9,
            "output_size": 9,
            "vocabulary": None,
            "inputs": [{"name": "inputs", "offset": 0, "size": 9, "vocabulary": None}],
            "outputs": [{"name": "outputs", "offset": 0, "size": 9, "vocabulary": None}],
            "returns_sequences": True,
            "is_streamable": True,
            "streaming_obstacles": [],
            "labels": None,
            "feedback": None,
            "state_layout": [
                {"layer": "lstm", "role": "h", "size": 32},
                {"layer": "lstm", "role": "c", "size": 32},
            ],
            "layers": [
                {
                    "name": "lstm",
                    "kind": "LSTM",
                    "output_size": 32,
                    "kernel": "numpy",
                    "device": "cpu",
                    "reason": "the only kernel that is there",
                }
            ],
            "runtime": "cpu",
            "runtime_reason": "it takes every layer, and there is no GPU",
        }
    )
    name: str
    version: str = Field(description="Of the model: the one that new sessions take.")
    fingerprint: str
    input_size: int
    output_size: int
    vocabulary: int | None = Field(description="Inputs are integers below it; null: real numbers.")
    inputs: list[TensorDocument]
    outputs: list[TensorDocument]
    returns_sequences: bool = Field(description="Whether `predict` answers with a time axis.")
    is_streamable: bool
    streaming_obstacles: list[str] = Field(description="Why there are no sessions, if so.")
    labels: list[str] | None = Field(description="A name for each output, if they have any.")
    feedback: list[int | None] | None = Field(
        description="For each input the output that feeds it where a forecast does not say; null"
        " for an input that keeps its value. Null as a whole: every input its own output."
    )
    state_layout: list[StateVectorDocument]
    layers: list[LayerDocument]
    runtime: Literal["cpu", "tensorflow"]
    runtime_reason: str


class ModelList(_Reply):
    """The models that are served."""

    model_config = _example({"models": [], "default": "gait"})
    models: list[ModelDocument]
    default: str = Field(description="The model of the short form `/v1/sessions/...`.")


class Health(_Reply):
    """All is well."""

    model_config = _example({"status": "ok"})
    status: str


class ProblemEntry(_Reply):
    """One thing that is wrong with a request."""

    location: list[str | int]
    message: str


class ProblemDocument(_Reply):
    """An error, as RFC 9457 has it."""

    model_config = _example(
        {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": "inputs: expected 12 numbers, got 11",
            "code": "invalid_request",
            "request_id": "5e0cbb0f3a9d4c55",
            "errors": [{"location": ["inputs"], "message": "expected 12 numbers, got 11"}],
        }
    )
    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable, for programs.")
    request_id: str
    position: Position | None = Field(None, description="Where the session is, on a conflict.")
    epoch: Epoch | None = Field(None, description="The life it is in, on a conflict.")
    errors: list[ProblemEntry] = Field([], description="What is wrong, for an invalid request.")

"""From the engine's replies to bytes. float32 numbers are written in their shortest exact form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.domain import AdvanceReply, Float32, ForecastReply, SessionReply, SessionSummary
from service.errors import PositionConflictError, ServiceError
from service.signature import Signature, StateVector


def render_advance(reply: AdvanceReply, signature: Signature) -> bytes:
    """Write a `StepReply` or `SequenceReply`."""
    document: dict[str, Any] = {
        "outputs": reply.outputs,
        "position": reply.position,
        "epoch": reply.epoch,
        "replayed": reply.replayed,
    }
    if reply.row is not None:
        document["states"] = states_of(reply.row, reply.layout or signature.state_layout)
    return dump(document)


def render_floats(outputs: Float32) -> bytes:
    """Write the little-endian float32 numbers of a stream's binary answer."""
    return outputs.astype("<f4", copy=False).tobytes()


def render_predict(outputs: Float32) -> bytes:
    """Write a `PredictReply`."""
    return dump({"outputs": outputs})


def render_forecast(reply: ForecastReply) -> bytes:
    """Write a `ForecastReply`."""
    return dump({"outputs": reply.outputs, "position": reply.position, "epoch": reply.epoch})


def render_steps(results: Sequence[AdvanceReply | ServiceError]) -> bytes:
    """Write a `StepsReply`."""
    replies = [result for result in results if not isinstance(result, ServiceError)]
    if len(replies) < len(results):
        return _render_some_steps(results)
    return dump(
        {
            "outputs": [reply.outputs for reply in replies],
            "positions": [reply.position for reply in replies],
            "epochs": [reply.epoch for reply in replies],
            "replayed": [reply.replayed for reply in replies],
            "errors": [None] * len(replies),
        }
    )


def _render_some_steps(results: Sequence[AdvanceReply | ServiceError]) -> bytes:
    replies = [None if isinstance(result, ServiceError) else result for result in results]
    return dump(
        {
            "outputs": [reply and reply.outputs for reply in replies],
            "positions": [reply and reply.position for reply in replies],
            "epochs": [reply and reply.epoch for reply in replies],
            "replayed": [reply is not None and reply.replayed for reply in replies],
            "errors": [
                error_document(result) if isinstance(result, ServiceError) else None
                for result in results
            ],
        }
    )


def render_reset(reply: SessionReply) -> bytes:
    """Write a `ResetReply`."""
    return dump({"position": reply.position, "epoch": reply.epoch})


def render_session(reply: SessionReply, client_id: str) -> bytes:
    """Write a `SessionDocument`."""
    return dump(
        {
            "client_id": client_id,
            "position": reply.position,
            "epoch": reply.epoch,
            "fingerprint": reply.fingerprint,
            "ttl_s": reply.ttl_s,
        }
    )


def render_state(reply: SessionReply, signature: Signature) -> bytes:
    """Write a `StateDocument`."""
    return dump(
        {
            "position": reply.position,
            "epoch": reply.epoch,
            "fingerprint": reply.fingerprint,
            "states": states_of(reply.row, signature.state_layout),
            "has_output": reply.has_output,
        }
    )


def render_sessions(sessions: Sequence[SessionSummary], cursor: str | None) -> bytes:
    """Write a `SessionList`."""
    return dump({"sessions": [line._asdict() for line in sessions], "next": cursor})


def render_model(signature: Signature) -> bytes:
    """Write a `ModelDocument`."""
    return dump(_model(signature))


def render_models(signatures: Sequence[Signature], default: str) -> bytes:
    """Write a `ModelList`."""
    models = [_model(signature) for signature in signatures]
    return dump({"models": models, "default": default})


def render_hello(
    signature: Signature, *, position: int, epoch: int | None, replay_window: int
) -> bytes:
    """Write a stream's first frame."""
    return dump(
        {
            "type": "hello",
            "position": position,
            "epoch": epoch,
            "input_size": signature.input_size,
            "output_size": signature.output_size,
            "replay_window": replay_window,
        }
    )


def render_error_frame(error: ServiceError) -> bytes:
    """Write a stream's last frame."""
    return dump({"type": "error", **error_document(error)})


def error_document(error: ServiceError) -> dict[str, object]:
    """Return `code` and `message`, and where the session is, if the error knows."""
    document: dict[str, object] = {"code": error.code, "message": str(error)}
    if isinstance(error, PositionConflictError):
        document |= {"position": error.position, "epoch": error.epoch}
    return document


def dump(document: object) -> bytes:
    """Write a document that may hold arrays."""
    return orjson.dumps(document, _as_list, orjson.OPT_SERIALIZE_NUMPY)


def _as_list(array: npt.NDArray[np.generic]) -> object:
    """Help with what orjson cannot write itself: arrays with gaps between their rows."""
    return array.tolist()


def states_of(row: Float32, layout: Sequence[StateVector]) -> list[Float32]:
    """Return the vectors of a row: h and c of every layer, in Keras's order."""
    vectors = []
    start = 0
    for part in layout:
        vectors.append(row[start : start + part.size])
        start += part.size
    return vectors


def _model(signature: Signature) -> dict[str, Any]:
    return {
        "name": signature.model,
        "version": signature.version,
        "fingerprint": signature.fingerprint,
        "input_size": signature.input_size,
        "output_size": signature.output_size,
        "vocabulary": signature.vocabulary,
        "inputs": [part._asdict() for part in signature.inputs],
        "outputs": [part._asdict() for part in signature.outputs],
        "returns_sequences": signature.returns_sequences,
        "is_streamable": not signature.streaming_obstacles,
        "streaming_obstacles": signature.streaming_obstacles,
        "labels": signature.labels,
        "feedback": signature.feedback,
        "state_layout": [part._asdict() for part in signature.state_layout],
        "layers": signature.layers,
        "runtime": signature.runtime,
        "runtime_reason": signature.runtime_reason,
    }

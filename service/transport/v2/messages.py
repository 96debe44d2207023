"""What is asked for an inference and what is answered, whichever transport carries it. No bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.domain import Float32
from service.errors import ServiceError
from service.transport.v2.sequences import Meaning

Scalar = bool | int | str | float
"""What a parameter may be."""

Parameters = Mapping[str, Scalar]


@dataclass(slots=True, kw_only=True, eq=False)
class InputTensor:
    """A named input. Never changed.

    Attributes:
        name: As the request names it.
        values: float32 of the shape that the request gives, which may hold anything; see
            `datatypes` for how it is made of the others.
    """

    name: str
    values: Float32


@dataclass(slots=True, kw_only=True, eq=False)
class InferRequest:
    """What is asked. Never changed.

    Attributes:
        model_name: The model.
        model_version: Its version; empty means the current one.
        id: The request's own name, given back with its answer; may be empty.
        parameters: Those of this protocol that have a meaning here are `sequence_id` (int or str),
            `sequence_start`, `sequence_end` (bool), `timeout` (int, microseconds; 0 means none) and
            `priority`, which is ignored; ours are `position` and `epoch` (int). Others are ignored.
        inputs: The tensors.
        outputs: Names of the outputs that are wanted, in the order wanted; empty means all.
        meaning: What the parameters mean, where that was found out before for the same ones.
    """

    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    inputs: Sequence[InputTensor]
    outputs: Sequence[str] = ()
    meaning: Meaning | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class OutputTensor:
    """A named output, FP32.

    Attributes:
        name: As the model names it.
        values: float32, of the shape of the output.
    """

    name: str
    values: Float32


@dataclass(slots=True, kw_only=True, eq=False)
class InferReply:
    """What came of it. Never changed.

    Attributes:
        model_name: The model.
        model_version: The version that ran: of a session the one that it lives on. Empty where that
            does not run here any more, and its answer was kept.
        id: The request's.
        outputs: The tensors that were wanted.
        parameters: `position`, `epoch` (int) and `replayed` (bool) where the request had `position`
            or `epoch`; else empty.
    """

    model_name: str
    model_version: str
    id: str
    outputs: Sequence[OutputTensor]
    parameters: Parameters = field(default_factory=dict)


Complete = Callable[[InferReply | ServiceError], None]
"""Called once, from the event loop, never before `Inference.infer` has returned. Once the work was
cancelled it is not called, or need not be heard."""

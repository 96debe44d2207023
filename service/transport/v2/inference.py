"""Inference by the Open Inference Protocol, whichever transport carries it.

Owns what a request means: sequences, their start and end, positions, batches without a sequence.
Knows no bytes: the transports turn them into an `InferRequest`, and an `InferReply` into them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.domain import Float32
from service.errors import ServiceError
from service.transport.operations import Work
from service.transport.v2.catalog import Catalog

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
    """

    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    inputs: Sequence[InputTensor]
    outputs: Sequence[str] = ()


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
        model_version: The version that ran.
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
"""Called once, from the event loop, never before `infer` has returned; never, or to be ignored, once
the work was cancelled."""


class Inference:
    """The one operation, over the models of a catalog."""

    def __init__(self, catalog: Catalog, *, max_sequence_steps: int) -> None:
        """Take the models.

        Args:
            catalog: The models.
            max_sequence_steps: More time steps in one request are refused; in a batch, of all its
                sequences together.
        """
        self._catalog = catalog
        self._max_sequence_steps = max_sequence_steps

    def infer(
        self, request: InferRequest, complete: Complete, timeout_s: float | None = None
    ) -> Work:
        """Begin what is asked. Requests of one sequence run in the order of these calls.

        Args:
            request: What is asked.
            complete: Told what came of it.
            timeout_s: How long the caller waits, as its transport says; the request's own
                `timeout` holds too.

        Returns:
            What can be cancelled: what has not gone to the store then will not be applied.

        Raises:
            ServiceError: It cannot be done, and nothing has begun.
        """
        raise NotImplementedError

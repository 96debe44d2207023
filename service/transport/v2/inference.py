"""Inference by the Open Inference Protocol, whichever transport carries it.

Owns what a request means: sequences, their start and end, positions, batches without a sequence.
Knows no bytes: the transports turn them into an `InferRequest`, and an `InferReply` into them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from service.domain import (
    DEFAULT_TENANT,
    AdvanceReply,
    AdvanceRequest,
    Float32,
    Reply,
    SessionKey,
    Signature,
)
from service.errors import InternalError, SequenceUnknownError, ServiceError, SessionUnknownError
from service.jobs import Job
from service.transport.explain import MAX_PROBLEMS, shorten, wrong
from service.transport.v2.catalog import Catalog, ServedModel
from service.transport.v2.sequences import SequenceUse, read_sequence, read_timeout
from service.transport.v2.shapes import check_batch, check_numbers, take_steps
from service.transport.work import Work

log = logging.getLogger(__name__)

Scalar = bool | int | str | float
"""What a parameter may be."""

Parameters = Mapping[str, Scalar]

_NOTHING: Parameters = {}


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
"""Called once, from the event loop, never before `infer` has returned. Once the work was cancelled
it is not called, or need not be heard."""


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
        began = perf_counter()
        model = self._catalog.find(request.model_name, request.model_version)
        try:
            return self._begin(model, request, complete, timeout_s, began)
        except ServiceError:
            model.statistics.note_failure(perf_counter() - began)
            raise

    def _begin(
        self,
        model: ServedModel,
        request: InferRequest,
        complete: Complete,
        timeout_s: float | None,
        began: float,
    ) -> Work:
        signature = model.engine.signature
        sequence = read_sequence(request.parameters)
        timeout_s = read_timeout(request.parameters, timeout_s)
        _check_outputs(request.outputs, signature)
        values = _find_input(request.inputs, signature)
        if sequence is None:
            check_batch(values, signature, self._max_sequence_steps)
            check_numbers(values, signature)
            prediction = _Prediction(model, request, complete, began)
            prediction.begin(values, timeout_s)
            return prediction
        inputs = take_steps(values, signature, self._max_sequence_steps)
        check_numbers(inputs, signature)
        advance = AdvanceRequest(
            key=SessionKey(DEFAULT_TENANT, signature.model, sequence.client_id),
            inputs=inputs,
            return_sequences=values.ndim == 3,
            position=sequence.position,
            epoch=sequence.epoch,
            must_exist=not sequence.starts,
            begins_anew=sequence.starts,
            ends=sequence.ends,
        )
        steps = _Steps(model, request, complete, began, sequence, values.ndim)
        steps.begin(advance, timeout_s)
        return steps


class _Answering:
    """A request on its way, until what came of it is told."""

    __slots__ = ("began", "complete", "model", "request")

    def __init__(
        self, model: ServedModel, request: InferRequest, complete: Complete, began: float
    ) -> None:
        """Take a request, and when it was read in seconds of `perf_counter`."""
        self.model = model
        self.request = request
        self.complete = complete
        self.began = began

    def succeed(self, outputs: Float32, parameters: Parameters) -> None:
        """Tell what the model gave."""
        request, model = self.request, self.model
        tensor = OutputTensor(name=model.engine.signature.output_name, values=outputs)
        self.complete(
            InferReply(
                model_name=request.model_name,
                model_version=model.version,
                id=request.id,
                outputs=(tensor,),
                parameters=parameters,
            )
        )

    def fail(self, error: ServiceError) -> None:
        """Tell what went wrong."""
        self.model.statistics.note_failure(perf_counter() - self.began)
        self.complete(error)


class _Steps(_Answering):
    """Time steps of a sequence in the engine."""

    __slots__ = ("job", "num_dimensions", "sequence")

    def __init__(
        self,
        model: ServedModel,
        request: InferRequest,
        complete: Complete,
        began: float,
        sequence: SequenceUse,
        num_dimensions: int,
    ) -> None:
        """Take a request, its sequence, and the number of dimensions of its input."""
        super().__init__(model, request, complete, began)
        self.sequence = sequence
        self.num_dimensions = num_dimensions
        self.job: Job | None = None

    def begin(self, advance: AdvanceRequest, timeout_s: float | None) -> None:
        """Ask the engine for the steps."""
        self.job = self.model.engine.submit(advance, self.complete_job, timeout_s)

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        if self.job is not None:
            self.job.cancel()
            self.job = None  # it holds this: a cycle, with the inputs in it

    def complete_job(self, result: Reply | ServiceError) -> None:
        """Take the engine's answer."""
        job, self.job = self.job, None  # as in `cancel`
        if isinstance(result, SessionUnknownError):
            result = SequenceUnknownError(self.sequence.id, self.request.model_name)
        if isinstance(result, ServiceError):
            self.fail(result)
            return
        assert isinstance(result, AdvanceReply)
        assert job is not None, "it was begun, and is completed once"
        begun_at = job.begun_at
        self.model.statistics.note_steps(begun_at - self.began, perf_counter() - begun_at)
        sequence = self.sequence
        parameters: Parameters = _NOTHING
        if sequence.position is not None or sequence.epoch is not None:
            parameters = {
                "position": result.position,
                "epoch": result.epoch,
                "replayed": result.replayed,
            }
        # The batch is 1, where the request has that dimension.
        self.succeed(
            result.outputs if self.num_dimensions == 1 else result.outputs[None], parameters
        )


class _Prediction(_Answering):
    """A batch without a sequence on its way through the kernel."""

    __slots__ = ("task",)

    task: asyncio.Task[Float32]

    def begin(self, values: Float32, timeout_s: float | None) -> None:
        """Begin with a batch that fits the model."""
        predicting = self.model.engine.predict(values, None, timeout_s)
        self.task = asyncio.get_running_loop().create_task(predicting)
        self.task.add_done_callback(partial(self.complete_batch, len(values)))

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        self.task.cancel()

    def complete_batch(self, num_rows: int, task: asyncio.Task[Float32]) -> None:
        """Take what the kernel gave."""
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.model.statistics.note_prediction(num_rows, perf_counter() - self.began)
            self.succeed(task.result(), _NOTHING)
            return
        if not isinstance(error, ServiceError):
            log.error("a batch for model %s failed", self.model.name, exc_info=error)
            error = InternalError()
        self.fail(error)


def _find_input(inputs: Sequence[InputTensor], signature: Signature) -> Float32:
    """Return the values of the model's one input."""
    if len(inputs) != 1 or inputs[0].name != signature.input_name:
        names = ", ".join(shorten(each.name) for each in inputs[:MAX_PROBLEMS])
        more = " and more" if len(inputs) > MAX_PROBLEMS else ""
        text = f"expected {signature.input_name} once and no other, got {names or 'none'}{more}"
        raise wrong(("inputs",), text)
    return inputs[0].values


def _check_outputs(names: Sequence[str], signature: Signature) -> None:
    for name in names:
        if name != signature.output_name:
            text = f"model {signature.model!r} has no output {shorten(name)!r}"
            raise wrong(("outputs",), f"{text}; it has {signature.output_name}")
    if len(names) > 1:
        raise wrong(("outputs",), f"{signature.output_name} is named {len(names)} times")

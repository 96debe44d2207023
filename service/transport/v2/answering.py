"""Inferences on their way: from the engine's answer to the protocol's. Counts them."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import perf_counter

from service.domain import AdvanceReply, AdvanceRequest, Float32, Reply
from service.errors import InternalError, SequenceUnknownError, ServiceError, SessionUnknownError
from service.jobs import Job
from service.transport.v2.catalog import ServedModel
from service.transport.v2.messages import (
    Complete,
    InferReply,
    InferRequest,
    Parameters,
)
from service.transport.v2.named_tensors import split_outputs
from service.transport.v2.sequences import SequenceUse

log = logging.getLogger(__name__)

_NOTHING: Parameters = {}


class Answering:
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

    def succeed(self, outputs: Float32, parameters: Parameters, version: str) -> None:
        """Tell what a version of the model gave."""
        request, model = self.request, self.model
        self.complete(
            InferReply(
                model_name=request.model_name,
                model_version=version,
                id=request.id,
                outputs=split_outputs(outputs, request.outputs, model.engine.signature),
                parameters=parameters,
            )
        )

    def fail(self, error: ServiceError) -> None:
        """Tell what went wrong."""
        self.model.statistics.note_failure(perf_counter() - self.began)
        self.complete(error)


class Steps(Answering):
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
        # As the class above does; the call would cost a step more than this.
        self.model = model
        self.request = request
        self.complete = complete
        self.began = began
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
        assert job.version is not None, "it is answered"
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
        outputs = result.outputs
        outputs = outputs if self.num_dimensions == 1 else outputs[None]
        self.succeed(outputs, parameters, job.version)


class Prediction(Answering):
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
            self.succeed(task.result(), _NOTHING, self.model.version)
            return
        if not isinstance(error, ServiceError):
            log.error("a batch for model %s failed", self.model.name, exc_info=error)
            error = InternalError()
        self.fail(error)

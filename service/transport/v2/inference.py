"""Inference by the Open Inference Protocol, whichever transport carries it.

Owns what a request means: sequences, their start and end, positions, batches without a sequence.
Knows no bytes: the transports turn them into an `InferRequest`, and an `InferReply` into them.
"""

from __future__ import annotations

from time import perf_counter

from service.domain import DEFAULT_TENANT, AdvanceRequest, SessionKey
from service.errors import DeadlineExceededError, ServiceError
from service.transport.v2.answering import Prediction, Steps
from service.transport.v2.catalog import Catalog, ServedModel
from service.transport.v2.messages import Complete, InferRequest
from service.transport.v2.named_tensors import check_outputs, join_inputs
from service.transport.v2.sequences import read_meaning
from service.transport.v2.shapes import check_batch, check_numbers, take_steps
from service.transport.work import Work


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
                `timeout` holds too. None at all at 0 and below.

        Returns:
            What can be cancelled: what has not gone to the store by then is not applied.

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
        sequence, own_timeout_s = request.meaning or read_meaning(request.parameters)
        if own_timeout_s is not None:
            timeout_s = own_timeout_s if timeout_s is None else min(own_timeout_s, timeout_s)
        if timeout_s is not None and timeout_s <= 0:
            raise DeadlineExceededError
        check_outputs(request.outputs, signature)
        values = join_inputs(request.inputs, signature)
        if sequence is None:
            check_batch(values, signature, self._max_sequence_steps)
            check_numbers(values, signature)
            prediction = Prediction(model, request, complete, began)
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
        steps = Steps(model, request, complete, began, sequence, values.ndim)
        steps.begin(advance, timeout_s)
        return steps

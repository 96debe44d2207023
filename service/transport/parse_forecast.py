"""From the bytes of a `ForecastBody` to the engine's request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.domain import ForecastRequest, SessionKey
from service.signature import Signature
from service.transport import schema
from service.transport.documents import read
from service.transport.explain import describe, wrong
from service.transport.parse import check_num_outputs, count, vector

_HELD = -1


def parse_forecast(
    body: bytes, signature: Signature, key: SessionKey, max_steps: int
) -> ForecastRequest:
    """Read a `ForecastBody` of at most `max_steps` time steps.

    Raises:
        InvalidRequestError: It is not one, does not fit the model, or would be answered with more
            than `MAX_OUTPUT_VALUES`.
    """
    document = read(schema.ForecastBody, body)
    if signature.vocabulary is not None:
        text = f"the model takes integers below {signature.vocabulary} and gives real numbers"
        raise wrong((), f"{text}: which of them comes next is the caller's choice, so step it")
    if document.steps > max_steps:
        raise wrong(("steps",), f"expected at most {max_steps} time steps, got {document.steps}")
    what, remedy = f"{document.steps} time steps", "ask for fewer"
    check_num_outputs(what, document.steps, signature, ("steps",), remedy)
    feedback = _feedback(document.feedback, signature)
    given = document.inputs
    if given is None and _HELD in feedback:
        index = int(np.argmin(feedback))
        raise wrong(("inputs",), f"missing: feedback.{index} is null, so input {index} needs one")
    return ForecastRequest(
        key=key,
        num_steps=document.steps,
        first_input=None if given is None else vector(given, signature, ("inputs",))[0],
        feedback=feedback,
        position=document.position,
        epoch=document.epoch,
    )


def _feedback(values: Sequence[int | None] | None, signature: Signature) -> npt.NDArray[np.intp]:
    """Return `(input_size,)`, for each input the index of its output, or `_HELD`."""
    num_inputs, num_outputs = signature.input_size, signature.output_size
    if values is None:
        values = signature.feedback
    if values is None:
        if num_outputs != num_inputs:
            text = f"missing: the model has {num_inputs} inputs and {num_outputs} outputs"
            raise wrong(("feedback",), f"{text}, so say which output feeds each input, or null")
        return np.arange(num_inputs)
    if len(values) != num_inputs:
        raise wrong(("feedback",), count("values", num_inputs, len(values)))
    for index, value in enumerate(values):
        if value is not None and value >= num_outputs:
            expected = f"expected an output's index, 0 to {num_outputs - 1}, or null"
            raise wrong(("feedback", index), f"{expected}, got {describe(value)}")
    return np.array([_HELD if value is None else value for value in values], np.intp)

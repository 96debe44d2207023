"""A model's named inputs and outputs, which lie side by side in a time step's values. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.domain import Float32
from service.errors import InvalidRequestError
from service.signature import Signature, TensorSummary
from service.transport.explain import MAX_PROBLEMS, shorten, wrong
from service.transport.v2.messages import InputTensor, OutputTensor


def join_inputs(inputs: Sequence[InputTensor], signature: Signature) -> Float32:
    """Return the values of all inputs side by side.

    Args:
        inputs: Those of a request.
        signature: The model's. Where it has one input, whether its size fits is seen later.

    Returns:
        `(..., input_size)` float32.

    Raises:
        InvalidRequestError: They are not the model's, or do not fit together.
    """
    parts = signature.inputs
    if len(parts) == 1 and len(inputs) == 1 and inputs[0].name == parts[0].name:
        return inputs[0].values
    given = {tensor.name: tensor.values for tensor in inputs}
    if len(given) != len(inputs) or given.keys() != {part.name for part in parts}:
        raise _wrong_inputs(inputs, parts)
    values = [given[part.name] for part in parts]
    for part, each in zip(parts, values, strict=True):
        if each.shape[-1:] != (part.size,) or each.shape[:-1] != values[0].shape[:-1]:
            expected = f"expected {part.size} values in the last dimension, the others as those of"
            text = f"{expected} {shorten(parts[0].name)}, got {list(each.shape)}"
            raise wrong((part.name,), text)
    return np.concatenate(values, axis=-1)


def check_outputs(names: Sequence[str], signature: Signature) -> None:
    """Look whether the outputs that are wanted are the model's, each of them once.

    Raises:
        InvalidRequestError: They are not.
    """
    if not names:
        return
    known = [part.name for part in signature.outputs]
    for index, name in enumerate(names):
        if name not in known:
            text = f"model {signature.model!r} has no output {shorten(name)!r}"
            raise wrong(("outputs",), f"{text}; it has {', '.join(map(shorten, known))}")
        if name in names[:index]:
            raise wrong(("outputs",), f"{shorten(name)} is named {names.count(name)} times")


def split_outputs(
    values: Float32, names: Sequence[str], signature: Signature
) -> tuple[OutputTensor, ...]:
    """Return the outputs that are wanted.

    Args:
        values: `(..., output_size)` float32.
        names: Which, in their order; empty means all.
        signature: The model's.
    """
    parts = signature.outputs
    if len(parts) == 1:
        return (OutputTensor(name=parts[0].name, values=values),)
    by_name = {part.name: part for part in parts}
    return tuple(
        OutputTensor(
            name=part.name,
            values=np.ascontiguousarray(values[..., part.offset : part.offset + part.size]),
        )
        for part in (map(by_name.__getitem__, names) if names else parts)
    )


def _wrong_inputs(
    inputs: Sequence[InputTensor], parts: Sequence[TensorSummary]
) -> InvalidRequestError:
    names = ", ".join(shorten(tensor.name) for tensor in inputs[:MAX_PROBLEMS])
    more = " and more" if len(inputs) > MAX_PROBLEMS else ""
    expected = " and ".join(shorten(part.name) for part in parts)
    each = "once" if len(parts) == 1 else "once each"
    text = f"expected {expected} {each} and no other, got {names or 'none'}{more}"
    return wrong(("inputs",), text)

"""Whether a tensor fits the model: its shape, and its numbers. Pure."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from service.domain import Float32
from service.signature import Signature
from service.transport.explain import Location, describe, wrong
from service.transport.parse import check_num_outputs
from service.transport.parse_steps import are_tokens

_FEW = 4096
"""Of up to as many numbers zeros are kept at hand."""


def take_steps(values: Float32, signature: Signature, max_steps: int) -> Float32:
    """Return what a sequence is to take, `(time, input_size)`."""
    size = signature.input_size
    shape = values.shape
    if (len(shape) > 1 and shape[0] != 1) or shape[-1:] != (size,) or len(shape) > 3:
        expected = f"expected the shape [1, {size}] for a time step of a sequence"
        text = f"{expected}, or [1, time, {size}] for several, got {list(shape)}"
        raise wrong(_where(signature), text)
    inputs = values.reshape(-1, size)
    num_steps = len(inputs)
    if not 0 < num_steps <= max_steps:
        text = f"expected 1 to {max_steps} time steps, got {num_steps}"
        raise wrong(_where(signature), text)
    if num_steps > 1:
        where = _where(signature)
        check_num_outputs(f"{num_steps} time steps", num_steps, signature, where)
    return inputs


def check_batch(values: Float32, signature: Signature, max_steps: int) -> None:
    """Look at the shape of a batch without a sequence, `(batch, time, input_size)`."""
    size = signature.input_size
    where = _where(signature)
    if values.ndim != 3 or values.shape[2] != size:
        text = f"expected the shape [batch, time, {size}] where no sequence_id is given"
        if not signature.streaming_obstacles:
            text += ", which keeps no state; with one, a time step is [1, features]"
        raise wrong(where, f"{text}; got {list(values.shape)}")
    batch, time = values.shape[:2]
    if not 0 < batch * time <= max_steps:
        text = f"expected 1 to {max_steps} time steps in all sequences together, got {batch * time}"
        raise wrong(where, text)
    if signature.returns_sequences:
        what = f"{batch} sequences of {time} time steps"
        check_num_outputs(what, batch * time, signature, where)
    else:
        check_num_outputs(f"{batch} sequences", batch, signature, where)


def check_numbers(values: Float32, signature: Signature) -> None:
    """Look whether all numbers are finite, and tokens where the model takes those."""
    vocabulary = signature.vocabulary
    if values.size <= _FEW:
        # Zero times anything finite is zero, and else NaN: a quarter of the time of asking each.
        is_finite = not np.vdot(values, _zeros(values.size))
    else:
        is_finite = bool(np.isfinite(values).all())
    if is_finite and vocabulary is None:
        return
    where = _where(signature)
    if not is_finite:
        bad = values.flat[int(np.argmin(np.isfinite(values)))]
        raise wrong(where, f"expected finite numbers, got {describe(float(bad))}")
    if vocabulary is not None and not are_tokens(values, vocabulary):
        raise wrong(where, f"expected integers from 0 to {vocabulary - 1}")


def _where(signature: Signature) -> Location:
    """Return the name of the one input, or that of them all, which lie side by side."""
    return (signature.inputs[0].name,) if len(signature.inputs) == 1 else ("inputs",)


@lru_cache(maxsize=64)
def _zeros(size: int) -> Float32:
    return np.zeros(size, np.float32)

"""From bytes to the engine's requests: every check of a request against the API and the model.

Pure functions, used by every entrance that speaks JSON or raw float32. `documents` checks types and
ranges; lengths are checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from struct import Struct

import numpy as np

from service.domain import AdvanceRequest, Bool, Float32, SessionKey
from service.signature import Signature
from service.transport import schema
from service.transport.documents import PartsLimit, read
from service.transport.explain import Location, describe, wrong

MAX_OUTPUT_VALUES = 2_000_000
"""A longer answer would take too long to write: the event loop stands still meanwhile."""

_LITTLE_FLOAT = np.dtype("<f4")


def parse_step(body: bytes, signature: Signature, key: SessionKey) -> AdvanceRequest:
    """Read a `StepBody`.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    is_real = signature.vocabulary is None
    document = read(schema.StepBody if is_real else schema.TokenStepBody, body)
    return AdvanceRequest(
        key,
        vector(document.inputs, signature, ("inputs",)),
        None,
        False,  # noqa: FBT003 - its place says it: no return_sequences
        document.return_state,
        document.position,
        document.epoch,
    )


def parse_sequence(
    body: bytes, signature: Signature, key: SessionKey, max_steps: int
) -> AdvanceRequest:
    """Read a `SequenceBody` of at most `max_steps` time steps.

    Raises:
        InvalidRequestError: It is not one, does not fit the model, or would be answered with more
            than `MAX_OUTPUT_VALUES`.
    """
    is_real = signature.vocabulary is None
    body_class = schema.SequenceBody if is_real else schema.TokenSequenceBody
    document = read(body_class, body, sequence_limit(max_steps))
    num_steps = len(document.inputs)
    _check_num_steps(document, num_steps, signature, max_steps)
    inputs = _sequence(document.inputs, signature, ("inputs",))
    return sequence_request(document, inputs, signature, key, max_steps)


def sequence_limit(max_steps: int) -> PartsLimit:
    """Return what a `SequenceBody` of so many time steps may hold."""
    # An array a time step; the few others are within what the limit lets through.
    return PartsLimit(max_steps, f"at most {max_steps} time steps")


def sequence_request(
    document: schema.SequenceBody,
    inputs: Float32,
    signature: Signature,
    key: SessionKey,
    max_steps: int,
) -> AdvanceRequest:
    """Return the request of a document whose inputs are `(time, input_size)` float32, and good.

    Raises:
        InvalidRequestError: It has too many time steps, or its mask is not as long as they are.
    """
    _check_num_steps(document, len(inputs), signature, max_steps)
    return AdvanceRequest(
        key=key,
        inputs=inputs,
        mask=_mask(document.mask, len(inputs), ("mask",)),
        return_sequences=document.return_sequences,
        return_state=document.return_state,
        position=document.position,
        epoch=document.epoch,
    )


def _check_num_steps(
    document: schema.SequenceBody, num_steps: int, signature: Signature, max_steps: int
) -> None:
    if num_steps > max_steps:
        raise wrong(("inputs",), f"expected at most {max_steps} time steps, got {num_steps}")
    if document.return_sequences:
        check_num_outputs(f"{num_steps} time steps", num_steps, signature)


def parse_predict(body: bytes, signature: Signature, max_steps: int) -> tuple[Float32, Bool | None]:
    """Read a `PredictBody` with at most `max_steps` time steps in all its sequences together.

    Returns:
        `(batch, time, input_size)` float32, and the mask `(batch, time)` if there is one.

    Raises:
        InvalidRequestError: It is not one, does not fit the model, or would be answered with more
            than `MAX_OUTPUT_VALUES`.
    """
    is_real = signature.vocabulary is None
    body_class = schema.PredictBody if is_real else schema.TokenPredictBody
    expected = f"at most {max_steps} time steps in all sequences together"
    # Sequences of one step have the most arrays: three a step, with that of the mask.
    document = read(body_class, body, PartsLimit(3 * max_steps, expected))
    if not document.inputs:
        raise wrong(("inputs",), "expected at least one sequence, got an empty array")
    num_all_steps = sum(map(len, document.inputs))
    if num_all_steps > max_steps:
        raise wrong(("inputs",), f"expected {expected}, got {num_all_steps}")
    sequences = [
        _sequence(rows, signature, ("inputs", index)) for index, rows in enumerate(document.inputs)
    ]
    num_steps = len(sequences[0])
    for index, one in enumerate(sequences):
        if len(one) != num_steps:
            expected = f"expected {num_steps} time steps as in the first sequence, got {len(one)}"
            raise wrong(("inputs", index), f"{expected}; pad it and mask the padding")
    if signature.returns_sequences:
        what = f"{len(sequences)} sequences of {num_steps} time steps"
        check_num_outputs(what, num_all_steps, signature)
    else:
        check_num_outputs(f"{len(sequences)} sequences", len(sequences), signature)
    if document.mask is None:
        return np.stack(sequences), None
    if len(document.mask) != len(sequences):
        raise wrong(("mask",), count("rows", len(sequences), len(document.mask)))
    masks = [_mask(row, num_steps, ("mask", i)) for i, row in enumerate(document.mask)]
    return np.stack(sequences), np.array(masks, np.bool_)


def parse_binary_steps(frame: bytes, signature: Signature, max_steps: int) -> Float32:
    """Read little-endian float32 numbers, `input_size` a time step, as `(time, input_size)`.

    Raises:
        InvalidRequestError: No whole number of time steps from 1 to `max_steps`, a number that is
            not finite, no token of the model, or an answer of more than `MAX_OUTPUT_VALUES`.
    """
    size = signature.input_size
    num_steps, rest = divmod(len(frame), 4 * size)
    if rest or not num_steps:
        expected = f"expected {4 * size} bytes ({size} float32 numbers) for each time step"
        raise wrong(("frame",), f"{expected}, got {len(frame)}")
    inputs = np.ndarray((num_steps, size), _LITTLE_FLOAT, frame)
    if num_steps > 1:
        if num_steps > max_steps:
            raise wrong(("frame",), f"expected at most {max_steps} time steps, got {num_steps}")
        check_num_outputs(f"{num_steps} time steps", num_steps, signature, ("frame",))
        is_finite = np.isfinite(inputs).all()
    else:
        # Zero times anything finite is zero, and else NaN: a quarter of the time of asking each.
        is_finite = not np.vdot(inputs, _zeros(size))
    if not is_finite:
        index = int(np.argmin(np.isfinite(inputs)))
        text = f"expected a finite number, got {describe(float(inputs.flat[index]))}"
        raise wrong(("frame", index), text)
    if signature.vocabulary is not None:
        tokens = inputs.ravel().tolist()
        for index, token in enumerate(tokens):
            if token != int(token):
                raise wrong(("frame", index), f"expected an integer, got {describe(token)}")
        _check_tokens([int(token) for token in tokens], signature.vocabulary, ("frame",))
    return inputs.astype(np.float32, copy=False)


def parse_single_steps(frames: Sequence[bytes], signature: Signature) -> Float32 | None:
    """Read several frames of one time step each at once, which costs little more than one alone.

    Returns:
        `(frames, input_size)` float32, or None where one of them is something else, or not good:
        `parse_binary_steps` tells.
    """
    size = signature.input_size
    if signature.vocabulary is not None:
        return None
    for frame in frames:
        if len(frame) != 4 * size:
            return None
    inputs = np.ndarray((len(frames), size), _LITTLE_FLOAT, b"".join(frames))
    if np.vdot(inputs, _zeros(len(frames) * size)):
        return None
    return inputs.astype(np.float32, copy=False)


@cache
def _zeros(size: int) -> Float32:
    return np.zeros(size, np.float32)


@cache
def _packer(size: int) -> Struct:
    return Struct(f"={size}f")


def vector(values: Sequence[float], signature: Signature, where: Location) -> Float32:
    """Return one time step's inputs, `(1, input_size)` float32, read-only.

    Raises:
        InvalidRequestError: Another length, or no token of the model.
    """
    size = signature.input_size
    if len(values) != size:
        kind = "numbers" if signature.vocabulary is None else "integer"
        raise wrong(where, count(kind, size, len(values)))
    if signature.vocabulary is not None:
        _check_tokens(values, signature.vocabulary, where)
    return np.ndarray((1, size), np.float32, _packer(size).pack(*values))


def _sequence(rows: Sequence[Sequence[float]], signature: Signature, where: Location) -> Float32:
    """Return `(time, input_size)` float32."""
    if not rows:
        raise wrong(where, "expected at least one time step, got an empty array")
    size = signature.input_size
    for index, row in enumerate(rows):
        if len(row) != size:
            raise wrong((*where, index), count("numbers", size, len(row)))
        if signature.vocabulary is not None:
            _check_tokens(row, signature.vocabulary, (*where, index))
    return pack(rows, size)


def pack(rows: Sequence[Sequence[float]], size: int) -> Float32:
    """Return rows of `size` numbers each as `(rows, size)` float32, read-only."""
    pack_row = _packer(size).pack
    packed = b"".join([pack_row(*row) for row in rows])
    return np.frombuffer(packed, np.float32).reshape(len(rows), size)


def check_num_outputs(
    what: str,
    num_vectors: int,
    signature: Signature,
    where: Location = ("inputs",),
    remedy: str = "send it in pieces",
) -> None:
    """Look whether so many vectors of outputs may be asked for.

    Raises:
        InvalidRequestError: They are more than `MAX_OUTPUT_VALUES`.
    """
    num_values = num_vectors * signature.output_size
    if num_values > MAX_OUTPUT_VALUES:
        answer = f"{what} with {signature.output_size} outputs each give {num_values}"
        text = f"expected an answer of at most {MAX_OUTPUT_VALUES} values, but {answer}"
        raise wrong(where, f"{text}; {remedy}")


def _check_tokens(values: Sequence[float], vocabulary: int, where: Location) -> None:
    for index, value in enumerate(values):
        if not 0 <= value < vocabulary:
            text = f"expected an integer from 0 to {vocabulary - 1}, got {describe(value)}"
            raise wrong((*where, index), text)


def _mask(values: list[bool] | None, num_steps: int, where: Location) -> Bool | None:
    if values is None:
        return None
    if len(values) != num_steps:
        raise wrong(where, f"expected {num_steps} values, one a time step, got {len(values)}")
    return np.array(values, np.bool_)


def count(noun: str, expected: int, actual: int) -> str:
    """Say how many of what were expected, and how many came."""
    return f"expected {expected} {noun}, got {actual}"

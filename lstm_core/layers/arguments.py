"""Checks of what callers hand to a recurrent Keras layer, with messages that name the layer.

Knows shapes and functions. Knows no layer and no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.errors import SpecError
from lstm_core.layers.activations_v1 import hard_sigmoid_v1
from lstm_core.spec import ACTIVATIONS

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]

_NAMES: dict[Callable[..., Any], str] = {
    keras.activations.get(name): name for name in sorted(ACTIVATIONS - {"hard_sigmoid_v1"})
} | {
    hard_sigmoid_v1: "hard_sigmoid_v1",  # Keras has none.
    tf.tanh: "tanh",
    tf.sigmoid: "sigmoid",
    keras.ops.tanh: "tanh",
    keras.ops.sigmoid: "sigmoid",
}


def checked_units(units: Any) -> int:
    """Return the number of units.

    Raises:
        ValueError: It is not a positive integer.
    """
    if isinstance(units, bool) or int(units) != units or units < 1:
        raise ValueError(f"units must be a positive integer, not {units!r}")
    return int(units)


def checked_implementation(implementation: int, recurrent_dropout: float) -> int:
    """Return 1 or 2: 1 wherever there is recurrent dropout, which needs a mask for each gate.

    Raises:
        ValueError: It is neither.
    """
    if implementation not in (1, 2):
        raise ValueError(f"implementation must be 1 or 2, not {implementation!r}")
    return 1 if recurrent_dropout else implementation


def activation_name(function: Callable[..., Any], field: str) -> str:
    """Return the name in `spec.ACTIVATIONS` of a Keras activation function.

    Raises:
        SpecError: It is not one of them. A Keras layer runs with it all the same.
    """
    try:
        return _NAMES[function]
    except (KeyError, TypeError):
        name = getattr(function, "__name__", None) or type(function).__name__
        raise SpecError(
            field,
            f"{name} is not one of the activations that kernels outside Keras know: "
            f"{', '.join(sorted(ACTIVATIONS))}",
        ) from None


def check_initial_state_shapes(shapes: Any, expected: Shape, layer_name: str) -> None:
    """Compare the shapes of `initial_state` with `expected`, None matching any size.

    Args:
        shapes: None, or the shapes of h and c.
        expected: `(batch, units)`.
        layer_name: For messages.

    Raises:
        ValueError: Not two shapes, or one that does not match.
    """
    if shapes is None:
        return
    is_pair = isinstance(shapes, Sequence) and all(isinstance(s, Sequence) for s in shapes)
    if not is_pair or len(shapes) != 2:
        given = f"{len(shapes)} tensors" if is_pair else f"a single tensor of shape {tuple(shapes)}"
        raise ValueError(
            f"initial_state of layer {layer_name} must be a list of two tensors [h, c], each of "
            f"shape {expected}, but it is {given}"
        )
    for name, shape in zip("hc", shapes, strict=True):
        if not tf.TensorShape(expected).is_compatible_with(tuple(shape)):
            raise ValueError(
                f"{name} of the initial_state of layer {layer_name} must have shape {expected}, "
                f"but it has {tuple(shape)}"
            )


def checked_initial_state(
    initial_state: Any, expected: Shape, dtype: str, layer_name: str
) -> list[Tensor]:
    """Return h and c as tensors of `dtype`.

    Raises:
        ValueError: As `check_initial_state_shapes`.
    """
    if isinstance(initial_state, list | tuple):
        tensors = [tf.cast(tf.convert_to_tensor(state), dtype) for state in initial_state]
        check_initial_state_shapes([tuple(t.shape) for t in tensors], expected, layer_name)
        return tensors
    shape = tuple(tf.convert_to_tensor(initial_state).shape)
    check_initial_state_shapes(shape, expected, layer_name)
    raise AssertionError("one shape is never a pair")


def checked_mask(mask: Any, sequences_shape: Any, layer_name: str) -> Tensor | None:
    """Return a mask as bool of rank 2, in the layout of the inputs.

    Args:
        mask: None, or `(batch, time)` or `(batch, time, 1)`, boolean or numeric, or time-major;
            or a list that begins with one, as Keras makes for several inputs.
        sequences_shape: Of the inputs, as far as it is known.
        layer_name: For messages.

    Raises:
        ValueError: It has another shape.
    """
    if isinstance(mask, list | tuple) and mask and (mask[0] is None or tf.is_tensor(mask[0])):
        mask = mask[0]
    if mask is None:
        return None
    tensor = tf.cast(tf.convert_to_tensor(mask), tf.bool)
    if tensor.shape.rank == 3 and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    if not tf.TensorShape(sequences_shape[:2]).is_compatible_with(tensor.shape):
        raise ValueError(
            f"mask of layer {layer_name} must have the first two dimensions of the inputs, "
            f"{tuple(sequences_shape[:2])}, but its shape is {tuple(tensor.shape)}"
        )
    return tensor

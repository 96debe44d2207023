"""Checks of what callers hand to a recurrent Keras layer, with messages that name the layer.

Also of the Keras that the layer stands on. Knows shapes and functions, no layer and no kernel.
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


def require_tensorflow_backend() -> None:
    """Check what Keras runs on: for modules that define layers, when they are imported.

    Raises:
        ImportError: It is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            "lstm_core.layers needs Keras on TensorFlow, but Keras runs on "
            f"{keras.backend.backend()}: set KERAS_BACKEND=tensorflow before the first import of "
            "keras"
        )


def is_symbolic(structure: Any) -> bool:
    """Return whether any tensor in a nested structure is one of Keras's symbolic ones."""
    return any(isinstance(tensor, keras.KerasTensor) for tensor in tf.nest.flatten(structure))


def checked_implementation(implementation: int, recurrent_dropout: float) -> int:
    """Return 1 or 2: 1 wherever there is recurrent dropout, which needs a mask for each gate.

    Args:
        implementation: 1 or 2; or 0, which stands in files of TensorFlow 1 and has meant 1 since
            release 1.5.
        recurrent_dropout: Of the layer.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(implementation, bool) or implementation not in (0, 1, 2):
        raise ValueError(f"implementation must be 1 or 2, not {implementation!r}")
    return 1 if recurrent_dropout else implementation or 1


def activation_name(function: Callable[..., Any], field: str) -> str:
    """Return the name in `spec.ACTIVATIONS` of a Keras activation function.

    Raises:
        SpecError: It is not one of them. A Keras layer runs with it all the same.
    """
    try:
        return _NAMES[function]
    except (KeyError, TypeError):
        raise SpecError(
            field,
            f"{function_name(function)} is not one of the activations that kernels outside Keras "
            f"know: {', '.join(sorted(ACTIVATIONS))}",
        ) from None


def function_name(function: Callable[..., Any]) -> str:
    """Return what a function is called, or the class of a callable that has no name."""
    return getattr(function, "__name__", None) or type(function).__name__


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


def checked_sequences(sequences: Any, dtype: str, layer_name: str) -> Tensor:
    """Return the inputs as a tensor of `dtype`.

    Args:
        sequences: Of booleans or real numbers.
        dtype: Of the result.
        layer_name: For messages.

    Raises:
        ValueError: They are ragged, or hold something else.
    """
    if isinstance(sequences, tf.RaggedTensor):
        raise ValueError(  # noqa: TRY004 - what every other misfit of the inputs raises.
            f"layer {layer_name} takes no ragged inputs: make them dense with `.to_tensor()`, and "
            "say which steps are live with a mask, such as "
            "`tf.sequence_mask(inputs.row_lengths())`"
        )
    tensor = as_numbers(sequences, f"the inputs of layer {layer_name}", takes_bool=True)
    return tf.cast(tensor, dtype)


def checked_initial_state(
    initial_state: Any, sequences: Tensor, units: int, dtype: str, layer_name: str
) -> list[Tensor]:
    """Return h and c as tensors of `dtype`, each `(batch, units)`.

    Args:
        initial_state: A list or tuple of two.
        sequences: `(time, batch, features)`.
        units: Of the layer.
        dtype: Of the results.
        layer_name: For messages.

    Raises:
        ValueError: As `check_initial_state_shapes`; or they are not real numbers. In a graph that
            does not know the batch size, running it raises `tf.errors.InvalidArgumentError` where
            the states have another one.
    """
    expected = (sequences.shape[1], units)
    subject = f"the initial_state of layer {layer_name}"
    if isinstance(initial_state, list | tuple):
        tensors = [as_numbers(state, subject) for state in initial_state]
        # A tensor of unknown rank has its rank and its width checked when it runs.
        tensors = [
            tf.ensure_shape(t, (None, units)) if t.shape.rank is None else t for t in tensors
        ]
        check_initial_state_shapes([tuple(t.shape) for t in tensors], expected, layer_name)
        return [with_batch_of(sequences, tf.cast(t, dtype), units) for t in tensors]
    shape = tuple(as_numbers(initial_state, subject).shape)
    check_initial_state_shapes(shape, expected, layer_name)
    raise AssertionError("one shape is never a pair")


def with_batch_of(sequences: Tensor, state: Tensor, units: int) -> Tensor:
    """Return a state as it is, made to fail when it runs if its batch is another than the inputs'.

    Args:
        sequences: `(time, batch, features)`.
        state: `(batch, units)`.
        units: Of the layer.
    """
    if state.shape.is_fully_defined() and sequences.shape[1] is not None:
        return state
    # Neither an assertion, which XLA drops, nor a reshape, which the graph optimizer drops. Joining
    # no columns compares the rows. The op's name stands in the message.
    name = "initial_state_must_have_the_batch_size_of_the_inputs"
    no_columns = tf.zeros((tf.shape(sequences)[1], 0), state.dtype)
    return tf.ensure_shape(tf.concat([no_columns, state], -1, name), (sequences.shape[1], units))


def checked_mask(mask: Any, sequences: Tensor | None, layer_name: str) -> Tensor | None:
    """Return a mask as bool of rank 2, in the layout of the inputs.

    Args:
        mask: None, or `(batch, time)` or `(batch, time, 1)`, boolean or numeric, or time-major;
            or a list that begins with one, as Keras makes for several inputs.
        sequences: `(batch, time, features)`, or time-major; None where only the mask is at hand.
        layer_name: For messages.

    Raises:
        ValueError: It has another shape, or holds neither booleans nor numbers. In a graph that
            does not know the sizes, running it raises `tf.errors.InvalidArgumentError` where the
            mask has others than the inputs.
    """
    if isinstance(mask, list | tuple) and mask and (mask[0] is None or tf.is_tensor(mask[0])):
        mask = mask[0]
    if mask is None:
        return None
    tensor = as_numbers(mask, f"the mask of layer {layer_name}", takes_bool=True)
    tensor = tf.cast(tensor, tf.bool)
    if tensor.shape.rank == 3 and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    expected = (None, None) if sequences is None else tuple(sequences.shape[:2])
    _check_mask_shape(tensor.shape, expected, layer_name)
    return tensor if sequences is None else _with_steps_of(sequences, tensor)


def check_symbolic_mask(mask: Any, sequences: Any, layer_name: str) -> None:
    """Compare what is known of the shapes of a symbolic call, before there are tensors.

    Args:
        mask: As `checked_mask` takes it; or a `keras.KerasTensor`, or a list that begins with one.
        sequences: The `keras.KerasTensor` of the inputs, or a list that begins with it.
        layer_name: For messages.

    Raises:
        ValueError: The mask never fits the inputs.
    """
    mask, sequences = (
        value[0] if isinstance(value, list | tuple) and value else value
        for value in (mask, sequences)
    )
    if not hasattr(mask, "shape"):
        return
    shape = tuple(mask.shape)
    shape = shape[:2] if len(shape) == 3 and shape[-1] == 1 else shape
    _check_mask_shape(shape, tuple(sequences.shape[:2]), layer_name)


def _check_mask_shape(shape: Any, expected: Shape, layer_name: str) -> None:
    if not tf.TensorShape(expected).is_compatible_with(shape):
        raise ValueError(
            f"mask of layer {layer_name} must have the first two dimensions of the inputs, "
            f"{expected}, but its shape is {tuple(shape)}"
        )


def _with_steps_of(sequences: Tensor, mask: Tensor) -> Tensor:
    """Return a mask as it is, made to fail when it runs if its sizes are not those of the inputs.

    Args:
        sequences: `(batch, time, features)`, or time-major.
        mask: `(batch, time)`, or time-major.
    """
    if mask.shape.is_fully_defined() and sequences.shape[:2].is_fully_defined():
        return mask
    # As for the states: joining none of the features compares both sizes.
    name = "mask_must_have_the_first_two_dimensions_of_the_inputs"
    no_features = tf.cast(sequences[..., :0], tf.bool)
    return tf.concat([no_features, mask[..., tf.newaxis]], -1, name)[..., 0]


def as_numbers(value: Any, subject: str, *, takes_bool: bool = False) -> Tensor:
    """Return a tensor of integers or floating numbers, or with `takes_bool` of booleans.

    Args:
        value: What came.
        subject: What it is, for messages.
        takes_bool: Whether booleans will do.

    Raises:
        ValueError: It is none.
    """
    wanted = "booleans or real numbers" if takes_bool else "real numbers"
    try:
        tensor = tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{subject} must be made of tensors of {wanted}, but there is a {type(value).__name__}"
        ) from error
    dtype = tensor.dtype
    if not (dtype.is_floating or dtype.is_integer or (takes_bool and dtype.is_bool)):
        raise ValueError(f"{subject} must hold {wanted}, but its dtype is {dtype.name}")
    return tensor

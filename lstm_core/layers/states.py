"""What a stateful layer remembers between its calls, and the checks of what is put there.

Owns the variables of `h` and `c`, and the methods by which callers see and set them. Knows no
weights and no recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.layers.arguments import checked_initial_state

Tensor: TypeAlias = Any

UNKNOWN_BATCH_SIZE = (
    "If a RNN is stateful, it needs to know its batch size. Specify the batch size of your input "
    "tensors:\n"
    "- If using a Sequential model, specify the batch size by passing a `batch_shape` argument to "
    "its `keras.Input`.\n"
    "- If using the functional API, specify the batch size by passing a `batch_shape` argument to "
    "your `keras.Input`."
)


class StatefulLayer:
    """Mixin of a `keras.Layer` with the states h and c, recorded between calls if `stateful`."""

    name: str
    units: int
    stateful: bool
    time_major: bool
    compute_dtype: str
    variable_dtype: str

    _recurrent_states: RecurrentStates | None = None

    def get_initial_state(self, batch_size: Any = None, *, inputs: Tensor = None) -> list[Tensor]:
        """Return zeros for h and c, each `(batch, units)` of the compute dtype.

        Args:
            batch_size: An integer or an integer scalar tensor, as in Keras 3; or the inputs, as in
                TensorFlow 2.
            inputs: `(batch, time, features)`, or time-major: whose batch size to take.
        """
        if inputs is None and len(getattr(batch_size, "shape", ())) > 1:
            inputs = batch_size
        if inputs is not None:
            batch_size = tf.shape(inputs)[1 if self.time_major else 0]
        return [tf.zeros((batch_size, self.units), self.compute_dtype) for _ in range(2)]

    @property
    def states(self) -> list[Any] | None:
        """The variables `[h, c]` of a stateful layer, each `(batch, units)`; None without them.

        None as in Keras 3, whose `Bidirectional` and whose users ask for it, and not the
        `[None, None]` of tf_keras, which the layers of TensorFlow 1 have.
        """
        return None if self._recurrent_states is None else self._recurrent_states.variables_in_order

    def reset_states(self, states: Any = None) -> None:
        """Set the recorded states of a stateful layer.

        Args:
            states: `[h, c]`, each `(batch, units)`; None means zeros.

        Raises:
            AttributeError: The layer is not stateful.
            ValueError: The batch size is not known yet, or `states` does not fit.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        if self._recurrent_states is None:
            raise ValueError(UNKNOWN_BATCH_SIZE)
        self._recurrent_states.reset(states, self.name)

    def reset_state(self) -> None:
        """Set the recorded states to zeros; do nothing where there are none, as Keras 3."""
        if self._recurrent_states is not None:
            self._recurrent_states.reset(None, self.name)

    def _create_states(self, batch_size: int | None) -> None:
        """Create the variables, zeros.

        Raises:
            ValueError: The batch size is unknown, or 0, which would then be that of every batch.
        """
        if batch_size is None:
            raise ValueError(UNKNOWN_BATCH_SIZE)
        if batch_size == 0:
            raise ValueError(
                f"Layer {self.name} is stateful, and the first batch fixes the size of all, but it "
                "is empty: begin with a batch that has rows, or build the layer with their number"
            )
        self._recurrent_states = RecurrentStates(batch_size, self.units, self.variable_dtype)

    def _record_states(self, h: Tensor, c: Tensor) -> None:
        """Keep h and c, each `(batch, units)`, for the next call of a stateful layer."""
        if self._recurrent_states is not None:
            self._recurrent_states.assign((h, c))

    def _first_states(self, sequences: Tensor, initial_state: Any) -> list[Tensor]:
        """Return h and c before time-major `sequences`, in the variables' dtype."""
        if initial_state is not None:
            return checked_initial_state(
                initial_state, sequences, self.units, self.variable_dtype, self.name
            )
        if self._recurrent_states is not None:
            return [
                tf.convert_to_tensor(state) for state in self._recurrent_states.variables_in_order
            ]
        shape = (tf.shape(sequences)[1], self.units)
        zeros = tf.zeros(shape, self.variable_dtype)
        return [zeros, zeros]

    def _with_stateful_batch(self, sequences: Tensor) -> Tensor:
        """Return time-major `sequences`, refusing another batch size than the states have.

        Raises:
            ValueError: It is another one. In a graph that does not know its batch size, running it
                raises `tf.errors.InvalidArgumentError` instead.
        """
        if self._recurrent_states is None:
            return sequences
        batch_size = self._recurrent_states.batch_size
        if sequences.shape[1] not in (None, batch_size):
            raise ValueError(
                f"Layer {self.name} is stateful with a batch size of {batch_size}, but a batch of "
                f"{sequences.shape[1]} came: every batch must have the same size, so fit and "
                "predict need a multiple of it"
            )
        # Not an assertion: XLA drops it, and so does the graph optimizer where the shape is known.
        # The op's name stands in the message.
        name = "batch_size_of_a_stateful_layer_must_not_change"
        return tf.ensure_shape(sequences, (None, batch_size, None), name)


class RecurrentStates(tf.Module):
    """The hidden and the cell state of one stateful layer, zeros at first.

    A `tf.Module`, so that a layer which holds one exports with it, while Keras counts neither
    among the layer's weights: files hold no states.

    Attributes:
        variables_in_order: `[h, c]`, each a `keras.Variable` `(batch, units)`.
    """

    def __init__(self, batch_size: int, units: int, dtype: str) -> None:
        super().__init__(name="recurrent_states")
        self.variables_in_order = [
            keras.Variable(
                "zeros",
                shape=(batch_size, units),
                dtype=dtype,
                trainable=False,
                autocast=False,
                name=name,
            )
            for name in ("h", "c")
        ]

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return int(self.variables_in_order[0].shape[0])

    def assign(self, values: Sequence[Any]) -> None:
        """Set h and c, each `(batch, units)`, cast to the dtype of the variables."""
        for variable, value in zip(self.variables_in_order, values, strict=True):
            variable.assign(tf.cast(value, variable.dtype))

    def reset(self, states: Any, layer_name: str) -> None:
        """Set h and c to what a caller gave, or to zeros.

        Args:
            states: Two arrays or tensors `(batch, units)`, real numbers; None means zeros.
            layer_name: For messages.

        Raises:
            ValueError: Another number of states, or another shape or dtype. Nothing has changed.
        """
        variables = self.variables_in_order
        if states is None:
            self.assign([np.zeros(variable.shape, np.float32) for variable in variables])
            return
        given = list(states) if isinstance(states, list | tuple) else [states]
        if len(given) != len(variables):
            raise ValueError(
                f"Layer {layer_name} expects {len(variables)} states, but it received {len(given)} "
                f"state values. States received: {states}"
            )
        self.assign(
            [
                _checked_state(index, value, variable.shape, layer_name)
                for index, (value, variable) in enumerate(zip(given, variables, strict=True))
            ]
        )


def _checked_state(index: int, value: Any, shape: tuple[int, ...], layer_name: str) -> Any:
    """Return one state as an array or tensor of real numbers.

    Raises:
        ValueError: Another shape or dtype.
    """
    problem = f"State {index} is incompatible with layer {layer_name}: expected"
    try:
        # The array's own kind, not the target's: strings must not become numbers.
        array = value if tf.is_tensor(value) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{problem} shape={tuple(shape)} but found ragged rows") from error
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{problem} shape={tuple(shape)} but found shape={tuple(array.shape)}")
    try:
        dtype = tf.as_dtype(array.dtype)
    except TypeError:
        dtype = tf.string
    if not (dtype.is_floating or (dtype.is_integer and not dtype.is_bool)):
        raise ValueError(f"{problem} dtype floating or integer but found dtype={array.dtype}")
    return array

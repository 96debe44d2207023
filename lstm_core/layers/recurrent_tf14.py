"""`LSTM`, the layer of `tf.keras.layers.LSTM` in TensorFlow 1.4, for Keras 3 on TensorFlow.

That release had no cells: the layer itself has the step, as a method that subclasses may replace,
and the input's part of it beside. Owns the arguments and the state between calls; the step is
`gates_tf14`'s, the loop `loop_tf14`'s, the base layer of the time `nodes_tf14`'s and
`graph_tf14`'s.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.dispatch import Dispatch
from lstm_core.layers import keras_v1
from lstm_core.layers.arguments import (
    check_initial_state_shapes,
    checked_mask,
    checked_sequences,
)
from lstm_core.layers.gates_tf14 import GateStep
from lstm_core.layers.graph_tf14 import GraphLayer
from lstm_core.layers.loop_tf14 import Result, repeat_step
from lstm_core.layers.nodes_tf14 import InboundNodes
from lstm_core.layers.selection import find_hardware

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]

_LATER = {
    "time_major": "TensorFlow 1.15",
    "zero_output_for_mask": "TensorFlow 1.14",
    "use_cudnn": "Keras 3",
}


# Named as in TensorFlow, so that layers are called "lstm" and files hold them where Keras's are.
@keras.saving.register_keras_serializable(package="lstm_core", name="LSTMTF14")
class LSTM(InboundNodes, GateStep, GraphLayer, keras_v1.LSTM):
    """Long Short-Term Memory layer of TensorFlow 1.4.

    A masked time step keeps the state and repeats h, the one that the layer began with before the
    first live step; with `unroll` zeros stand there, as that release had it. "hard_sigmoid" means
    `clip(0.2 x + 0.5, 0, 1)`. Eager code works; what the release refused outside a graph raises
    its RuntimeError here too.

    Args:
        units: Length of the output and of both states, at least 1.
        activation: Of the cell candidate and of the output; None means linear.
        recurrent_activation: Of the three gates; None means linear.
        use_bias: Whether there is a bias.
        kernel_initializer: Of `kernel`, `(features, 4 * units)`.
        recurrent_initializer: Of `recurrent_kernel`, `(units, 4 * units)`.
        bias_initializer: Of `bias`, `(4 * units,)`.
        unit_forget_bias: Start the forget gate's bias at one.
        kernel_regularizer: Of `kernel`.
        recurrent_regularizer: Of `recurrent_kernel`.
        bias_regularizer: Of `bias`.
        activity_regularizer: Of the outputs; not divided by the batch size, as Keras 3 does.
        kernel_constraint: Of `kernel`.
        recurrent_constraint: Of `recurrent_kernel`.
        bias_constraint: Of `bias`.
        dropout: Fraction of the inputs to drop in training, the same ones at every step; nothing is
            dropped where it is 1.
        recurrent_dropout: Fraction of the hidden state to drop in training; as above.
        return_sequences: Return the output of every step, not only the last.
        return_state: Return a list of the output, h and c.
        go_backwards: Process the time steps from the last to the first; outputs keep that order.
        stateful: Begin each call with the states that the last one ended with.
        unroll: Lay the steps out in the graph; needs a known number of them.
        implementation: 0 takes the products of the inputs before the loop, 1 and 2 step by step;
            0 and 1 draw a dropout mask for each gate, 2 uses the first for all.
        seed: Of the dropout masks; None draws one.
        **kwargs: `name`, `dtype`, `trainable`, `batch_input_shape` and the rest of the base layer.

    Raises:
        ValueError: `units` is not positive or `implementation` is not 0, 1 or 2.
        TypeError: An argument came with a later release.

    References:
        The documentation of `tf.keras.layers.LSTM`, TensorFlow 1.4.
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "hard_sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        implementation: int = 0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name in _LATER.keys() & kwargs:
            raise TypeError(
                f"Keyword argument not understood: {name}, which came with {_LATER[name]}: use "
                "lstm_core.LSTM"
            )
        if isinstance(implementation, bool) or implementation not in (0, 1, 2):
            raise ValueError(f"implementation must be 0, 1 or 2, not {implementation!r}")
        super().__init__(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            seed=seed,
            **kwargs,
        )
        self.implementation = implementation  # Also 2 with recurrent dropout, unlike later.

    # The arguments are called, and stand, as in that release.
    def build(self, input_shape: Shape) -> None:  # type: ignore[override]
        """Create the weights, and the states of a stateful layer.

        Args:
            input_shape: `(batch, time, features)`, or the list of that and of the states' shapes.

        Raises:
            ValueError: The number of features is unknown, or the layer is stateful and the batch
                size is.
        """
        super().build(_first_shape(input_shape))

    def call(  # type: ignore[override]
        self, inputs: Tensor, mask: Any = None, training: Any = None, initial_state: Any = None
    ) -> Tensor | list[Tensor]:
        """Run the recurrence.

        Args:
            inputs: `(batch, time, features)`, or the list of that and of the first states.
            mask: `(batch, time)` bool, true where a step is live; None means the mask that the
                inputs carry, if any.
            training: Whether dropout applies.
            initial_state: `[h, c]`, each `(batch, units)`; None means the recorded states of a
                stateful layer, else zeros.

        Returns:
            `(batch, units)`, or with `return_sequences` `(batch, time, units)`; with
            `return_state` the list of that, h and c, each `(batch, units)`.

        Raises:
            ValueError: The inputs are ragged, `initial_state` or `mask` does not fit, the batch of
                a stateful layer has another size than the states, or `unroll` meets an unknown
                number of steps. What only the data tell raises `tf.errors.InvalidArgumentError`
                when a graph runs.
        """
        if isinstance(inputs, list | tuple):
            inputs, *initial_state = inputs
        if mask is None:
            mask = getattr(inputs, "_keras_mask", None)
        inputs = checked_sequences(inputs, self.compute_dtype, self.name)
        self._check_unroll(inputs)
        mask = checked_mask(mask, inputs, self.name)
        result = self._run(inputs, mask, training, initial_state)
        self._record_states(*result.states)
        if self.stateful:
            self.add_update(list(zip(self.states, result.states, strict=True)), inputs)
        output = result.last_output
        if self.return_sequences:
            output = tf.transpose(result.outputs, (1, 0, 2))
        results = [output, *result.states] if self.return_state else [output]
        results = [tf.cast(x, self.compute_dtype) for x in results]
        return results if self.return_state else results[0]

    def _run(self, inputs: Tensor, mask: Tensor | None, training: Any, initial: Any) -> Result:
        if self._kernel_counts is not None:
            self._kernel_counts.add("tensorflow")
        constants = self.get_constants(inputs, training)
        sequences = tf.transpose(self.preprocess_input(inputs, training), (1, 0, 2))
        sequences = self._with_stateful_batch(sequences)
        if initial is None and not self.stateful:
            initial = self.get_initial_state(inputs)  # Which a subclass may replace, too.
        return repeat_step(
            self.step,
            sequences,
            self._first_states(sequences, initial),
            constants,
            mask=None if mask is None else tf.transpose(mask),
            go_backwards=self.go_backwards,
            unroll=self.unroll,
        )

    def compute_output_shape(self, input_shape: Shape) -> Any:  # type: ignore[override]
        """Return the shape of the output, or a tuple of it and of those of h and c."""
        batch, time, _ = _first_shape(input_shape)
        if not _is_shape(input_shape):
            check_initial_state_shapes(list(input_shape[1:]), (batch, self.units), self.name)
        state = (batch, self.units)
        output = (batch, time, self.units) if self.return_sequences else state
        return (output, state, state) if self.return_state else output

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return symbolic outputs, once `initial_state` is known to fit.

        Raises:
            ValueError: It does not.
        """
        states = kwargs.get("initial_state")
        if states is not None:
            shapes = tf.nest.map_structure(lambda state: tuple(state.shape), states)
            check_initial_state_shapes(shapes, (args[0].shape[0], self.units), self.name)
        return super().compute_output_spec(*args, **kwargs)

    def explain_dispatch(self, mask: Any = None) -> Dispatch:
        """Return the kernel that every call runs on, its device, and the reason."""
        return Dispatch(
            kernel="tensorflow",
            device=find_hardware().device,
            reason="the layer's own step, in TensorFlow operations: a subclass may replace it",
        )

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised: `from_config` makes an equal layer of it."""
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in _LATER}

    def _check_unroll(self, inputs: Tensor) -> None:
        if self.unroll and inputs.shape[1] is None:
            raise ValueError(
                "Cannot unroll a RNN if the time dimension is undefined: unroll=True needs a known "
                "number of time steps. Give it in keras.Input(shape=...) or batch_input_shape, or "
                "leave unroll off"
            )


def _is_shape(shape: Any) -> bool:
    return all(size is None or isinstance(size, int) for size in shape)


def _first_shape(shape: Any) -> Shape:
    return tuple(shape if _is_shape(shape) else shape[0])

"""`LSTM`, the layer of `tf.compat.v1.keras.layers.LSTM`, for Keras 3 on TensorFlow.

Owns what sets it apart from the layer of TensorFlow 2: the gates' `hard_sigmoid`, gate by gate
products, and no cuDNN. Everything else is `lstm_core.layers.lstm`.
"""

from __future__ import annotations

from typing import Any

import keras

from lstm_core.layers import lstm
from lstm_core.layers.activations_v1 import get_v1, serialize_v1


class _NoStates(list[None]):
    """States not recorded: false, by which `keras.layers.Bidirectional` knows them."""

    def __bool__(self) -> bool:
        return False


# Named as in TensorFlow, so that layers are called "lstm" and files hold them where Keras's are.
@keras.saving.register_keras_serializable(package="lstm_core", name="LSTMV1")
class LSTM(lstm.LSTM):
    """Long Short-Term Memory layer with the defaults of TensorFlow 1.

    "hard_sigmoid" means `clip(0.2 x + 0.5, 0, 1)` here, by name and in configs. Never runs on
    cuDNN.

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
        activity_regularizer: Of the outputs.
        kernel_constraint: Of `kernel`.
        recurrent_constraint: Of `recurrent_kernel`.
        bias_constraint: Of `bias`.
        dropout: Fraction of the inputs to drop in training, 0 to 1, the same ones at every step.
        recurrent_dropout: Fraction of the hidden state to drop in training, 0 to 1. Above 0 it
            makes `implementation` 1.
        return_sequences: Return the output of every step, not only the last.
        return_state: Return h and c after the output.
        go_backwards: Process the time steps from the last to the first; outputs keep that order.
        stateful: Begin each call with the states that the last one ended with.
        unroll: Lay the steps out in the graph; needs a known number of them.
        implementation: 1 multiplies gate by gate, with a dropout mask for each; 2 at once, with
            one mask. 0 means 1, as in every release from 1.5 on. By keyword only: releases differ
            in where it stands.
        **kwargs: `time_major`, and what else `lstm_core.LSTM` takes, but `use_cudnn`.

    Raises:
        ValueError: `units` is not positive or `implementation` is not 0, 1 or 2.
        TypeError: `use_cudnn` is among `kwargs`.

    References:
        The documentation of `tf.compat.v1.keras.layers.LSTM`, TensorFlow 2.0 and 2.4.
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
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        *,
        implementation: int = 1,
        **kwargs: Any,
    ) -> None:
        if "use_cudnn" in kwargs:
            raise TypeError(
                "Keyword argument not understood: use_cudnn. The layer of TensorFlow 1 never runs "
                "on cuDNN: use lstm_core.LSTM"
            )
        super().__init__(
            units,
            activation=get_v1(activation),
            recurrent_activation=get_v1(recurrent_activation),
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
            implementation=implementation,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            use_cudnn=False,
            **kwargs,
        )

    @property
    def states(self) -> list[Any]:
        """The variables `[h, c]` of a stateful layer, each `(batch, units)`; else two None."""
        return super().states or _NoStates((None, None))

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised: `from_config` makes an equal layer of it."""
        config = super().get_config()
        del config["use_cudnn"]
        return {
            **config,
            "activation": serialize_v1(self.activation),
            "recurrent_activation": serialize_v1(self.recurrent_activation),
        }

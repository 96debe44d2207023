"""What `lstm_core.compat.tf14.LSTM` refuses, as its documentation promises, and its arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from lstm_core.compat import tf14
from lstm_core.errors import NoGraphError

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)


def never_called() -> Any:
    """Return a layer that nothing has used."""
    return tf14.LSTM(UNITS)


def called_eagerly() -> Any:
    """Return a layer that was called on arrays only."""
    layer = tf14.LSTM(UNITS, return_sequences=True)
    layer(X)
    return layer


def called_twice() -> Any:
    """Return a layer that was called on two symbolic inputs of different length."""
    layer = tf14.LSTM(UNITS, return_sequences=True)
    for time in (TIME, TIME + 1):
        layer(keras.Input((time, FEATURES)))
    return layer


def stateful() -> Any:
    """Return a stateful layer that was called."""
    layer = tf14.LSTM(UNITS, stateful=True)
    layer(X)
    return layer


SINGLE = ("input", "output", "input_mask", "output_mask", "input_shape", "output_shape")
AT = tuple(f"get_{member}_at" for member in SINGLE)


@pytest.mark.parametrize("name", SINGLE)
def test_properties_of_the_only_call(name):
    """AttributeError before any call and after several, RuntimeError where all were eager."""
    with pytest.raises(AttributeError, match="never been called and thus has no defined"):
        getattr(never_called(), name)
    with pytest.raises(AttributeError, match=rf"use get_{name}_at\(node_index\) instead"):
        getattr(called_twice(), name)
    with pytest.raises(RuntimeError, match=rf"{name} of layer .*not supported in eager mode"):
        getattr(called_eagerly(), name)


def test_input_shape_may_be_that_of_every_call():
    """Two calls on inputs of one shape have one."""
    layer = never_called()
    for _ in range(2):
        layer(keras.Input((TIME, FEATURES)))
    assert [(None, TIME, FEATURES), (None, UNITS)] == [layer.input_shape, layer.output_shape]


@pytest.mark.parametrize("name", AT)
def test_methods_of_one_call(name):
    """RuntimeError without a symbolic call, ValueError where there were fewer."""
    for make in (never_called, called_eagerly):
        with pytest.raises(RuntimeError, match=rf"{name} of layer .*Call the layer on keras"):
            getattr(make(), name)(0)
    for index in (2, -1):
        with pytest.raises(ValueError, match=rf"asked for node {index}, .* only 2 inbound nodes"):
            getattr(called_twice(), name)(index)


GRAPH_ONLY: dict[str, Callable[[Any], Any]] = {
    "graph": lambda layer: layer.graph,
    "updates": lambda layer: layer.updates,
    "get_updates_for": lambda layer: layer.get_updates_for(None),
    "get_losses_for": lambda layer: layer.get_losses_for(None),
    "add_loss": lambda layer: layer.add_loss(tf.zeros(())),
    "add_variable with a regularizer": lambda layer: layer.add_variable(
        "w", (1,), regularizer=keras.regularizers.L2()
    ),
}


@pytest.mark.parametrize("name", GRAPH_ONLY)
def test_what_needs_a_graph_raises_in_eager_mode(name):
    """A RuntimeError says what to do instead; properties are absent to `hasattr`."""
    layer = called_eagerly()
    with pytest.raises(RuntimeError, match="not supported in eager mode: ") as caught:
        GRAPH_ONLY[name](layer)
    assert isinstance(caught.value, NoGraphError)
    assert name == caught.value.member.removesuffix(f" of layer {layer.name}")
    assert len(caught.value.advice) > 20
    assert [False, False] == [hasattr(layer, "graph"), hasattr(layer, "updates")]


def wrong_weights(layer: Any) -> None:
    """Set one array of three."""
    layer.set_weights([np.zeros((FEATURES, 4 * UNITS))])


MISUSE: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "count_params": (lambda: never_called().count_params(), ValueError, "isn't built"),
    "scope_name": (lambda: never_called().scope_name, ValueError, "has not been used yet"),
    "set_weights": (lambda: wrong_weights(called_eagerly()), ValueError, "with a weight list"),
    "reset_states_not_stateful": (
        lambda: called_eagerly().reset_states(),
        AttributeError,
        "Layer must be stateful",
    ),
    "reset_states_unknown_batch": (
        lambda: tf14.LSTM(UNITS, stateful=True).reset_states(),
        ValueError,
        "needs to know its batch size",
    ),
    "reset_states_count": (
        lambda: stateful().reset_states(np.zeros((BATCH, UNITS))),
        ValueError,
        "expects 2 states, but it received 1",
    ),
    "reset_states_shape": (
        lambda: stateful().reset_states([np.zeros((BATCH, UNITS)), np.zeros((1, UNITS))]),
        ValueError,
        r"State 1 is incompatible .* expected shape=\(5, 4\)",
    ),
    "initial_state_count": (
        lambda: called_eagerly()(X, [np.zeros((BATCH, UNITS))]),
        ValueError,
        "must be a list of two tensors",
    ),
    "initial_state_mix": (
        lambda: never_called()(keras.Input((TIME, FEATURES)), [np.zeros((1, UNITS))] * 2),
        ValueError,
        "a mix of Keras tensors and other tensors",
    ),
    "symbolic_initial_state": (
        lambda: never_called()([keras.Input((TIME, FEATURES)), keras.Input((UNITS,))]),
        ValueError,
        "must be a list of two tensors",
    ),
    "unroll": (
        lambda: tf.function(
            tf14.LSTM(UNITS, unroll=True),
            input_signature=[tf.TensorSpec((None, None, FEATURES))],
            autograph=False,
        ).get_concrete_function(),
        ValueError,
        "Cannot unroll a RNN if the time dimension is undefined",
    ),
    "batch": (lambda: stateful()(X[:2]), ValueError, "stateful with a batch size of 5"),
    "mask": (lambda: called_eagerly()(X, mask=X[0] > 0), ValueError, "must have the first two"),
    "implementation": (
        lambda: tf14.LSTM(UNITS, implementation=3),
        ValueError,
        "implementation must be 0, 1 or 2, not 3",
    ),
    "units": (lambda: tf14.LSTM(0), ValueError, "units must be a positive integer"),
    "features": (
        lambda: never_called().build((None, None, None)),
        ValueError,
        "needs to know the number of features",
    ),
    "time_major": (
        lambda: tf14.LSTM(UNITS, time_major=True),
        TypeError,
        "time_major, which came with TensorFlow 1.15: use lstm_core.LSTM",
    ),
    "use_cudnn": (lambda: tf14.LSTM(UNITS, use_cudnn=True), TypeError, "came with Keras 3"),
    "add_variable": (
        lambda: called_eagerly().add_variable("kernel", (1, 1)),
        ValueError,
        r"variable kernel of layer .* has shape \(3, 16\), but .* \(1, 1\)",
    ),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused(name):
    """The documented type of error says what was wrong and what was expected."""
    act, error, message = MISUSE[name]
    with pytest.raises(error, match=message):
        act()


def test_add_variable_gets_an_existing_one():
    """The same name and shape give the layer's own variable."""
    layer = called_eagerly()
    assert layer.kernel is layer.add_variable("kernel", (FEATURES, 4 * UNITS))


@pytest.mark.parametrize("gate", range(4))
@pytest.mark.parametrize("weight", ["kernel", "recurrent_kernel", "bias"])
def test_weights_of_one_gate(weight, gate):
    """`kernel_i`, `recurrent_kernel_f`, `bias_o` and the rest are columns of the weights."""
    layer = called_eagerly()
    columns = slice(gate * UNITS, (gate + 1) * UNITS)
    expected = getattr(layer, weight).numpy()[..., columns]
    np.testing.assert_array_equal(getattr(layer, f"{weight}_{'ifco'[gate]}"), expected)


def test_no_bias_has_no_gates():
    """Without a bias its parts are None, as it is."""
    layer = tf14.LSTM(UNITS, use_bias=False)
    layer.build(X.shape)
    assert [None] * 5 == [layer.bias, layer.bias_i, layer.bias_f, layer.bias_c, layer.bias_o]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_losses_of_the_outputs_train(run_eagerly):
    """An activity regularizer and `add_loss` in `call` are part of what `fit` minimises.

    The activity's loss is not divided by the batch size, as TensorFlow 1.4 did not.
    """

    class Small(tf14.LSTM):
        """Punishes its inputs."""

        def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            """Add a loss of three."""
            self.add_loss(tf.constant(3.0), inputs)
            return super().call(inputs, *args, **kwargs)

    layer = Small(UNITS, activity_regularizer=keras.regularizers.L2(0.5))
    model = keras.Sequential([keras.Input((TIME, FEATURES)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=run_eagerly)
    y = np.asarray(layer(X))
    loss = model.fit(X, y, batch_size=BATCH, verbose=0).history["loss"][0]
    assert pytest.approx(3 + 0.5 * (y**2).sum(), rel=1e-5) == loss


def test_a_deep_copy_keeps_functions_and_states():
    """What no config can hold is copied too, and the recorded states."""

    def cube(x: Any) -> Any:
        """Return the third power."""
        return x**3

    layer = tf14.LSTM(UNITS, activation=cube, stateful=True, kernel_regularizer="l2")
    layer(X)
    twin = copy.deepcopy([layer, layer])
    assert [True, True, False] == [
        twin[0] is twin[1],
        twin[0].activation is cube,
        twin[0].kernel is layer.kernel,
    ]
    np.testing.assert_array_equal(twin[0](X), layer(X))
    assert [] == copy.deepcopy(never_called()).weights


ARGUMENTS: dict[str, tuple[Any, Callable[[Any], Any], Any]] = {
    "units": (UNITS, lambda m: m.output_size, UNITS),
    "activation": (None, lambda m: m.activation(7.0), 7.0),
    "recurrent_activation": ("hard_sigmoid", lambda m: float(m.recurrent_activation(1.0)), 0.7),
    "use_bias": (False, lambda m: len(m.weights), 2),
    "kernel_initializer": ("ones", lambda m: m.kernel.numpy().min(), 1.0),
    "recurrent_initializer": ("zeros", lambda m: m.recurrent_kernel.numpy().max(), 0.0),
    "bias_initializer": ("ones", lambda m: m.bias.numpy().min(), 1.0),
    "unit_forget_bias": (False, lambda m: m.bias.numpy().max(), 0.0),
    "kernel_regularizer": ("l2", lambda m: len(m.losses), 1),
    "recurrent_regularizer": ("l1", lambda m: len(m.losses), 1),
    "bias_regularizer": ("l2", lambda m: len(m.losses), 1),
    "activity_regularizer": ("l2", lambda m: len(m.losses), 1),
    "kernel_constraint": ("non_neg", lambda m: m.kernel.constraint is not None, True),
    "recurrent_constraint": ("non_neg", lambda m: m.recurrent_kernel.constraint is not None, True),
    "bias_constraint": ("non_neg", lambda m: m.bias.constraint is not None, True),
    "dropout": (1.5, lambda m: m.dropout, 1.0),
    "recurrent_dropout": (-1.0, lambda m: m.recurrent_dropout, 0.0),
    "return_sequences": (True, lambda m: tuple(m(X).shape), (BATCH, TIME, UNITS)),
    "return_state": (True, lambda m: len(m(X)), 3),
    "go_backwards": (True, lambda m: m.go_backwards, True),
    "stateful": (True, lambda m: len(m.states), 2),
    "unroll": (True, lambda m: tuple(m(X).shape), (BATCH, UNITS)),
    "implementation": (2, lambda m: m.implementation, 2),
    "input_length": (TIME, lambda m: m.batch_input_shape, (None, TIME, None)),
    "batch_input_shape": ((1, 2, 3), lambda m: m.batch_input_shape, (1, 2, 3)),
    "input_shape": ((2, 3), lambda m: m.batch_input_shape, (None, 2, 3)),
    "name": ("mine", lambda m: m.name, "mine"),
    "dtype": ("float64", lambda m: m(X).dtype.name, "float64"),
    "trainable": (False, lambda m: len(m.trainable_weights), 0),
    "weights": (
        [np.ones(s) for s in ((FEATURES, 16), (UNITS, 16), (16,))],
        lambda m: m.bias.numpy().min(),
        1.0,
    ),
}
"""Each argument of the constructor: a value, what to look at, and what is expected there."""


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_has_its_effect(name):
    """Each argument does what the document says, on a layer that was called."""
    value, look, expected = ARGUMENTS[name]
    layer = tf14.LSTM(**{"units": UNITS, name: value})
    layer(X)
    assert pytest.approx(expected) == look(layer)

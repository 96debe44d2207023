"""Every name in the documentation of TensorFlow 1.4's `tf.keras.layers.LSTM`, and what it does."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from lstm_core.compat import tf14
from lstm_core.layers.activations_v1 import hard_sigmoid_v1

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)

PROPERTIES = (
    "activity_regularizer", "dtype", "graph", "input", "input_mask", "input_shape", "losses",
    "name", "non_trainable_variables", "non_trainable_weights", "output", "output_mask",
    "output_shape", "scope_name", "trainable_variables", "trainable_weights", "updates",
    "variables", "weights",
)  # fmt: skip
"""The properties, as the document has them."""

METHODS: dict[str, tuple[str, ...]] = {
    "__init__": (
        "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer",
        "recurrent_initializer", "bias_initializer", "unit_forget_bias", "kernel_regularizer",
        "recurrent_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint",
        "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout",
    ),
    "__call__": ("inputs", "initial_state"),
    "__deepcopy__": ("memo",),
    "add_loss": ("losses", "inputs"),
    "add_update": ("updates", "inputs"),
    "add_variable": (
        "name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint",
    ),
    "add_weight": (
        "name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint",
    ),
    "apply": ("inputs",),
    "build": ("input_shape",),
    "call": ("inputs", "mask", "training", "initial_state"),
    "compute_mask": ("inputs", "mask"),
    "count_params": (),
    "from_config": ("config",),
    "get_config": (),
    "get_constants": ("inputs", "training"),
    "get_initial_state": ("inputs",),
    "get_input_at": ("node_index",),
    "get_input_mask_at": ("node_index",),
    "get_input_shape_at": ("node_index",),
    "get_losses_for": ("inputs",),
    "get_output_at": ("node_index",),
    "get_output_mask_at": ("node_index",),
    "get_output_shape_at": ("node_index",),
    "get_updates_for": ("inputs",),
    "get_weights": (),
    "preprocess_input": ("inputs", "training"),
    "reset_states": ("states",),
    "set_weights": ("weights",),
    "step": ("inputs", "states"),
}  # fmt: skip
"""The methods with their arguments, as the document has them."""

DEFAULTS = {
    "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True,
    "kernel_initializer": "glorot_uniform", "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros", "unit_forget_bias": True, "dropout": 0.0,
    "recurrent_dropout": 0.0,
}  # fmt: skip
"""Of `__init__`; None for the rest."""


@pytest.fixture(scope="module")
def scene() -> SimpleNamespace:
    """Make layers that were called on a masked input, in eager code, and on two inputs."""
    symbolic = tf14.LSTM(UNITS, name="one", return_sequences=True, activity_regularizer="l2")
    x = keras.Input((TIME, FEATURES))
    masked = keras.layers.Masking()(x)
    y = symbolic(masked)
    eager = tf14.LSTM(UNITS, name="eager", kernel_regularizer="l2", seed=1)
    eager(X)
    shared = tf14.LSTM(UNITS, name="shared", return_state=True)
    inputs = [keras.Input((TIME, FEATURES)), keras.Input((TIME + 1, FEATURES))]
    states = [keras.Input((UNITS,)), keras.Input((UNITS,))]
    outputs = [shared(inputs[0]), shared(inputs[1], initial_state=states)]
    return SimpleNamespace(
        one=symbolic, masked=masked, y=y, eager=eager, shared=shared, inputs=inputs, states=states,
        outputs=outputs, fresh=tf14.LSTM(UNITS, name="fresh"),
    )  # fmt: skip


def in_graph(function: Callable[[Any], Any]) -> Any:
    """Run a function of X's tensor while a graph is built, and return what it saw there."""
    seen = []
    graph = tf.function(lambda x: seen.append(function(x)), autograph=False)
    graph.get_concrete_function(tf.constant(X))
    return seen[0]


def is_same(expected: Any, actual: Any) -> tuple[list[int], list[int]]:
    """Return two structures of tensors as the identities of these."""
    return tuple([id(t) for t in tf.nest.flatten(s)] for s in (expected, actual))  # type: ignore[return-value]


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras has put on a tensor."""
    return getattr(tensor, "_keras_mask", None)


def arrays(layer: Any) -> list[list[Any]]:
    """Return a layer's weights as lists."""
    return [w.tolist() for w in layer.get_weights()]


def graph_losses(layer: Any, x: Any) -> list[int]:
    """Count the losses that depend on an input, on none, and on another input."""
    layer(x)
    return [len(layer.get_losses_for(i)) for i in (x, None, tf.zeros(()))]


def graph_updates(layer: Any, x: Any) -> list[int]:
    """Count all updates, and those of an input, of none, and of another input."""
    layer.add_update([(1, 2), (3, 4)], x)
    layer.add_update("op")
    return [len(layer.updates), *(len(layer.get_updates_for(i)) for i in (x, None, tf.zeros(())))]


def own_losses(layer: Any, x: Any) -> list[int]:
    """Add a loss of `x` and one of nothing to a layer, and count both kinds."""
    layer.add_loss([tf.reduce_sum(x)], inputs=x)
    layer.add_loss(tf.zeros(()))
    return [len(layer.get_losses_for(x)), len(layer.get_losses_for(None)), len(layer.losses)]


def added(method: str) -> list[Any]:
    """Add a variable by position, in `build`, and return what it became."""

    class Scaled(tf14.LSTM):
        """Has a variable of its own."""

        def build(self, input_shape: Any) -> None:  # type: ignore[override]
            """Add the variable."""
            add = getattr(self, method)
            self.scale = add("scale", (2,), "float64", "ones", None, False, "non_neg")
            super().build(input_shape)

    layer = Scaled(UNITS)
    layer.build(X.shape)
    v = layer.scale
    return [v.name, tuple(v.shape), v.dtype, v.trainable, float(v[0]), type(v.constraint).__name__]


ADDED = ["scale", (2,), "float64", False, 1.0, "NonNeg"]


def twin(layer: Any) -> list[Any]:
    """Return what a deep copy shares with its layer, and what it does not."""
    other = copy.deepcopy(layer)
    other.set_weights([w + 1 for w in other.get_weights()])
    return [other.name, other.get_config() == layer.get_config(), arrays(other) == arrays(layer)]


def with_states(layer: Any, states: Any) -> list[Any]:
    """Set a layer's states and return their values."""
    layer.reset_states(states)
    return [float(np.asarray(s)[0, 0]) for s in layer.states]


def stateful() -> Any:
    """Return a stateful layer that was called."""
    layer = tf14.LSTM(UNITS, stateful=True)
    layer(X)
    return layer


def updates_of_a_call(layer: Any) -> list[str]:
    """Return the names of the variables that a layer's call in a graph updates."""

    def call(x: Any) -> list[str]:
        layer(x)
        return [variable.name for variable, _ in layer.get_updates_for(x)]

    return in_graph(call)


DOES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "activity_regularizer": lambda s: ("L2", type(s.one.activity_regularizer).__name__),
    "dtype": lambda s: ("float32", s.eager.dtype),
    "graph": lambda s: (True, in_graph(lambda x: s.one.graph is x.graph)),
    "input": lambda s: is_same(s.masked, s.one.input),
    "input_mask": lambda s: is_same(mask_of(s.masked), s.one.input_mask),
    "input_shape": lambda s: ((None, TIME, FEATURES), s.one.input_shape),
    "losses": lambda s: (1, len(s.eager.losses)),
    "name": lambda s: ("eager", s.eager.name),
    "non_trainable_variables": lambda s: (  # The seed of dropout is one in Keras 3.
        ["seed_generator_state"],
        [v.name for v in s.eager.non_trainable_variables],
    ),
    "non_trainable_weights": lambda s: ([], s.eager.non_trainable_weights),
    "output": lambda s: is_same(s.y, s.one.output),
    "output_mask": lambda s: is_same(mask_of(s.masked), s.one.output_mask),
    "output_shape": lambda s: ((None, TIME, UNITS), s.one.output_shape),
    "scope_name": lambda s: ("eager", s.eager.scope_name),
    "trainable_variables": lambda s: (3, len(s.eager.trainable_variables)),
    "trainable_weights": lambda s: (
        ["kernel", "recurrent_kernel", "bias"],
        [v.name for v in s.eager.trainable_weights],
    ),
    "updates": lambda s: ([3, 2, 1, 0], in_graph(lambda x: graph_updates(s.fresh, x))),
    "variables": lambda s: (3 + 1, len(s.eager.variables)),
    "weights": lambda s: is_same(s.eager.trainable_weights, s.eager.weights),
    "__init__": lambda s: (
        [hard_sigmoid_v1, keras.activations.tanh, 0],
        [s.fresh.recurrent_activation, s.fresh.activation, s.fresh.implementation],
    ),
    "__call__": lambda s: (
        s.eager(X, [X[:, 0, :1] @ np.ones((1, UNITS), "f")] * 2).numpy().tolist(),
        s.eager([X, *[X[:, 0, :1] @ np.ones((1, UNITS), "f")] * 2]).numpy().tolist(),
    ),
    "__deepcopy__": lambda s: (["eager", True, False], twin(s.eager)),
    "add_loss": lambda s: ([1, 1, 2], in_graph(lambda x: own_losses(s.fresh, x))),
    "add_update": lambda s: (None, s.eager.add_update("nothing happens in eager mode")),
    "add_variable": lambda _: (ADDED, added("add_variable")),
    "add_weight": lambda _: (ADDED, added("add_weight")),
    "apply": lambda s: (s.eager(X).numpy().tolist(), s.eager.apply(X).numpy().tolist()),
    "build": lambda s: ((FEATURES, 4 * UNITS), tuple(s.eager.kernel.shape)),
    "call": lambda s: (
        s.eager(X, mask=X[..., 0] > 0).numpy().tolist(),
        s.eager.call(X, X[..., 0] > 0, False, None).numpy().tolist(),
    ),
    "compute_mask": lambda s: (
        [None, "mask", [None, None, None]],
        [layer.compute_mask(X, "mask") for layer in (s.eager, s.one, s.shared)],
    ),
    "count_params": lambda s: (4 * UNITS * (FEATURES + UNITS + 1), s.eager.count_params()),
    "from_config": lambda s: (
        s.eager.get_config(),
        tf14.LSTM.from_config(s.eager.get_config()).get_config(),
    ),
    "get_config": lambda s: ("hard_sigmoid", s.eager.get_config()["recurrent_activation"]),
    "get_constants": lambda s: ([[1.0] * 4] * 2, s.eager.get_constants(X)),
    "get_initial_state": lambda s: (
        [[[0.0] * UNITS] * BATCH] * 2,
        [h.numpy().tolist() for h in s.eager.get_initial_state(X)],
    ),
    "get_input_at": lambda s: is_same(
        [s.inputs[0], [s.inputs[1], *s.states]], [s.shared.get_input_at(i) for i in (0, 1)]
    ),
    "get_input_mask_at": lambda s: (
        [None, [None] * 3],
        [s.shared.get_input_mask_at(i) for i in (0, 1)],
    ),
    "get_input_shape_at": lambda s: (
        [(None, TIME + 1, FEATURES), (None, UNITS), (None, UNITS)],
        s.shared.get_input_shape_at(1),
    ),
    "get_losses_for": lambda s: (
        [[1, 0, 0], [0, 1, 0]],
        in_graph(lambda x: [graph_losses(layer, x) for layer in (s.one, s.eager)]),
    ),
    "get_output_at": lambda s: is_same(s.outputs, [s.shared.get_output_at(i) for i in (0, 1)]),
    "get_output_mask_at": lambda s: is_same(mask_of(s.y), s.one.get_output_mask_at(0)),
    "get_output_shape_at": lambda s: ([(None, UNITS)] * 3, s.shared.get_output_shape_at(1)),
    "get_updates_for": lambda _: (["h", "c"], updates_of_a_call(stateful())),
    "get_weights": lambda s: (
        [(FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)],
        [w.shape for w in s.eager.get_weights()],
    ),
    "preprocess_input": lambda s: (
        np.round(X @ s.eager.kernel.numpy() + s.eager.bias.numpy(), 4).tolist(),
        np.round(s.eager.preprocess_input(X).numpy(), 4).tolist(),
    ),
    "reset_states": lambda _: (
        [[1.0, 2.0], [0.0, 0.0]],
        [
            with_states(stateful(), [np.full((BATCH, UNITS), v) for v in (1.0, 2.0)]),
            with_states(stateful(), None),
        ],
    ),
    "set_weights": lambda s: (None, s.eager.set_weights(s.eager.get_weights())),
    "step": lambda s: (
        [(BATCH, UNITS)] * 3,
        [
            tuple(t.shape)
            for t in tf.nest.flatten(
                s.eager.step(
                    s.eager.preprocess_input(X)[:, 0],
                    s.eager.get_initial_state(X) + s.eager.get_constants(X),
                )
            )
        ],
    ),
}
"""What each name does: what is expected, and what comes."""


def test_no_name_of_the_document_is_missing():
    """The table has a row for each property and method."""
    assert {*PROPERTIES, *METHODS} == DOES.keys()


@pytest.mark.parametrize("name", DOES)
def test_does_what_the_document_says(name, scene):
    """Each property and method gives what its row expects."""
    expected, actual = DOES[name](scene)
    assert expected == actual


@pytest.mark.parametrize("name", METHODS)
def test_arguments_are_those_of_the_document(name):
    """Positional arguments have its names, in its order."""
    parameters = inspect.signature(getattr(tf14.LSTM, name)).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = tuple(p.name for p in positional if p.name != "self")[: len(METHODS[name])]
    if name == "get_initial_state":  # Takes Keras 3's batch size too, and `inputs` by name.
        assert "inputs" in inspect.signature(tf14.LSTM.get_initial_state).parameters
    else:
        assert METHODS[name] == names


def test_defaults_are_those_of_the_document():
    """Each argument of the constructor has the document's default."""
    parameters = inspect.signature(tf14.LSTM.__init__).parameters
    assert {name: DEFAULTS.get(name) for name in METHODS["__init__"][1:]} == {
        name: parameters[name].default for name in METHODS["__init__"][1:]
    }

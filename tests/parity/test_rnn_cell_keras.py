"""`lstm_core.LSTMCell` as a Keras layer and as the core's LSTM: dtypes, activations, models."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from lstm_core import LSTMCell, LSTMStateTuple, equations
from lstm_core.errors import SpecError, WeightsError
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize
from tests.parity.rnn_cell_cases import FEATURES, FULL, built, step_of

X = tf.zeros((2, FEATURES))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtype_is_that_of_the_first_input(dtype):
    """Until then it is not known; afterwards another is refused."""
    cell = LSTMCell(4)
    assert cell.dtype is None
    assert cell.get_config()["dtype"] is None

    output, state = cell(tf.cast(X, dtype), cell.zero_state(2, dtype))

    assert dtype == cell.dtype == output.dtype.name == state.dtype.name
    assert {dtype} == {v.dtype for v in cell.weights}
    other = "float64" if dtype == "float32" else "float32"
    with pytest.raises(ValueError, match=f"must be {dtype}"):
        cell(tf.cast(X, other), cell.zero_state(2, other))


def test_build_before_a_call_takes_keras_dtype():
    """Without `dtype` there is no input to take it from, so it is Keras's, as the peer's."""
    assert "float32" == built(LSTMCell(4)).dtype
    assert "float64" == built(LSTMCell(4, dtype=tf.float64)).dtype


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_a_float32_state(policy):
    """Weights and state are float32, outputs 16 bits, near the float32 numbers."""
    arguments = {**FULL, "activation": None}
    mixed = built(LSTMCell(**arguments, dtype=policy))
    full = built(LSTMCell(**arguments, dtype="float32"))
    full.set_weights(mixed.get_weights())

    output, state = step_of(mixed)

    assert {"float32"} == {v.dtype for v in mixed.weights}
    assert (policy.removeprefix("mixed_"), tf.float32) == (output.dtype.name, state.dtype)
    tolerance = 2e-2 if policy == "mixed_bfloat16" else 2e-3
    np.testing.assert_allclose(
        tf.cast(output, tf.float32), step_of(full)[0], rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(
    ("activation", "at_one"),
    [
        (None, np.tanh(1)),
        ("", np.tanh(1)),
        ("hard_sigmoid", 0.7),
        (keras.activations.hard_sigmoid, 2 / 3),
        ("relu", 1.0),
    ],
)
def test_activations_by_name_are_those_of_keras_2(activation, at_one):
    """`hard_sigmoid` is the old one by name and Keras 3's as its function, in configs too."""
    cell = LSTMCell(4, activation=activation)
    again = LSTMCell.from_config(cell.get_config())

    for made in (cell, again):
        np.testing.assert_allclose(made.activation(tf.constant([1.0])), [at_one], rtol=1e-6)


def test_initializers_draw_each_weight_for_itself():
    """Weights of one shape differ, the bias is zero, and Glorot-uniform is the default."""
    cell = built(LSTMCell(8, use_peepholes=True, initializer="he_normal"))
    forget, inputs, output = (cell.w_f_diag.numpy(), cell.w_i_diag.numpy(), cell.w_o_diag.numpy())
    assert not np.array_equal(forget, inputs)
    assert not np.array_equal(inputs, output)
    assert not cell.bias.numpy().any()
    assert np.abs(built(LSTMCell(8)).kernel.numpy()).max() <= np.sqrt(6 / (FEATURES + 8 + 32))
    ones = built(LSTMCell(8, initializer=tf.compat.v1.ones_initializer()))
    assert ones.kernel.numpy().all()
    with tf.compat.v1.variable_scope("with_ones", initializer=tf.compat.v1.ones_initializer()):
        assert built(LSTMCell(8)).kernel.numpy().min() == 1


@pytest.mark.parametrize("options", [{}, {"unroll": True}, {"go_backwards": True}])
def test_keras_rnn_equals_the_equations(options):
    """Under `keras.layers.RNN` the states are [c, h]; masks are Keras's."""
    cell = LSTMCell(**FULL)
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True, **options)
    x = np.random.default_rng(0).normal(size=(2, 5, FEATURES)).astype("float32")
    mask = np.array([[True] * 5, [True, True, False, True, False]])
    if "go_backwards" in options:
        mask[:] = True

    outputs, c, h = layer(x, mask=tf.constant(mask))

    expected = equations.sequence(
        cell.spec,
        cell.get_core_weights(),
        x,
        mask=mask,
        **{key: value for key, value in options.items() if key == "go_backwards"},
    )
    for theirs, ours in ((expected.outputs, outputs), (expected.c, c), (expected.h, h)):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    np.testing.assert_allclose(
        layer(x, initial_state=[c, h])[1],
        equations.sequence(
            cell.spec, cell.get_core_weights(), x, c=c.numpy(), h=h.numpy(),
            go_backwards="go_backwards" in options,
        ).c,
        atol=2e-6,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["tuple", "concatenated", "stacked"])
def test_keras_trains_saves_and_loads_it(kind, tmp_path):
    """A model with the cell learns, and its file gives the same numbers."""
    cell = {
        "tuple": lambda: LSTMCell(**FULL),
        "concatenated": lambda: LSTMCell(4, state_is_tuple=False),
        "stacked": lambda: keras.layers.StackedRNNCells([LSTMCell(4), LSTMCell(**FULL)]),
    }[kind]()
    model = keras.Sequential([keras.Input((None, FEATURES)), keras.layers.RNN(cell)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(4, 5, FEATURES)).astype("float32")
    before = [w.numpy() for w in model.trainable_weights]
    model.fit(x, np.full((4, model.output_shape[-1]), 0.1), verbose=0)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert all((b != w.numpy()).any() for b, w in zip(before, model.trainable_weights, strict=True))
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_a_stateful_rnn_carries_the_state():
    """Two halves in a stateful RNN equal the whole."""
    cell = LSTMCell(**FULL)
    whole = keras.layers.RNN(cell)
    halves = keras.layers.RNN(cell, stateful=True)
    x = np.random.default_rng(0).normal(size=(2, 6, FEATURES)).astype("float32")

    halves(x[:, :3])

    np.testing.assert_allclose(halves(x[:, 3:]), whole(x), atol=1e-6)


def test_a_functional_model_takes_the_cell_itself():
    """Symbolic inputs and states give the numbers of a direct call."""
    cell = LSTMCell(4)
    x, c, h = keras.Input((FEATURES,)), keras.Input((4,)), keras.Input((4,))
    output, state = cell(x, LSTMStateTuple(c, h))
    model = keras.Model([x, c, h], [output, *state])
    values = [np.full((2, size), 0.3, "float32") for size in (FEATURES, 4, 4)]

    expected, after = cell(values[0], values[1:])

    for e, a in zip((expected, *after), model(values), strict=True):
        np.testing.assert_array_equal(e, a)


def test_a_functional_model_may_have_only_symbolic_states():
    """Inputs that are values are constants of the model."""
    cell = LSTMCell(4)
    states = [keras.Input((4,), batch_size=2), keras.Input((4,), batch_size=2)]
    output, _ = cell(X, states)
    values = [np.full((2, 4), 0.3, "float32")] * 2

    expected, _ = cell(X, values)

    np.testing.assert_array_equal(expected, keras.Model(states, output)(values))


def test_an_activity_regularizer_adds_its_loss():
    """Such a cell goes through Keras's own call."""
    cell = LSTMCell(4, activity_regularizer="l2")

    output, _ = step_of(cell)

    np.testing.assert_allclose(cell.losses[0], 0.01 * (output.numpy() ** 2).sum() / 2, rtol=1e-5)


def test_weights_come_from_a_core_lstm_and_go_back():
    """Kernels, peepholes and projection keep their gates; without a bias it is zeros."""
    spec = LSTMSpec(
        input_size=FEATURES, units=4, use_peepholes=True, projection_size=2, forget_bias=1.0
    )
    weights = initialize(spec, 0)
    cell = built(LSTMCell.from_spec(spec))

    cell.set_core_weights(weights)

    back = cell.get_core_weights()
    for name in ("kernel", "recurrent_kernel", "bias", "peepholes", "projection"):
        np.testing.assert_array_equal(getattr(weights, name), getattr(back, name))
    without = LSTMSpec(input_size=FEATURES, units=4, use_bias=False)
    plain = built(LSTMCell.from_spec(without))
    plain.set_core_weights(initialize(without, 0))
    assert not plain.bias.numpy().any()


def test_what_the_core_cannot_say_or_fit_is_refused():
    """An unbuilt cell, other gates, an unknown activation, and weights of another size."""
    with pytest.raises(SpecError, match="not built"):
        _ = LSTMCell(4).spec
    with pytest.raises(SpecError, match="recurrent_activation"):
        LSTMCell.from_spec(LSTMSpec(input_size=1, units=1, recurrent_activation="tanh"))
    with pytest.raises(SpecError, match="activation"):
        _ = built(LSTMCell(4, activation=lambda x: x)).spec
    with pytest.raises(WeightsError, match="recurrent_kernel"):
        built(LSTMCell(4)).set_core_weights(
            LSTMWeights(kernel=np.ones((3, 16)), recurrent_kernel=np.ones((5, 16)), bias=None)
        )

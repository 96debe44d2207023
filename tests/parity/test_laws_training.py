"""Laws of `lstm_core.LSTM`'s weights: how they begin, what holds them, files, precision, `fit`."""

from __future__ import annotations

import functools
import json
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from tests.parity.cases import BOUNDED, cases, pool
from tests.parity.record import agree, agree_in_rows
from tests.parity.subjects import subject

FEATURES, UNITS = 3, 4
LAYERS = (lstm_core.LSTM, keras.layers.LSTM)

# The seeds of an initializer count once, so that each layer gets one of its own.
INITIALIZERS: dict[str, Any] = {
    "zeros": lambda _: keras.initializers.Zeros(),
    "ones": lambda _: keras.initializers.Ones(),
    "constant": lambda seed: keras.initializers.Constant(seed / 100),
    "random_normal": lambda seed: keras.initializers.RandomNormal(seed=seed),
    "random_uniform": lambda seed: keras.initializers.RandomUniform(seed=seed),
    "glorot_uniform": lambda seed: keras.initializers.GlorotUniform(seed=seed),
    "he_normal": lambda seed: keras.initializers.HeNormal(seed=seed),
    "variance_scaling": lambda seed: keras.initializers.VarianceScaling(seed=seed),
}
OF_MATRICES: dict[str, Any] = INITIALIZERS | {
    "orthogonal": lambda seed: keras.initializers.Orthogonal(seed=seed),
    "identity": lambda _: keras.initializers.Identity(),
}


def built(make: Any, options: dict[str, Any]) -> Any:
    """Return a layer with weights."""
    layer = make(UNITS, **options)
    layer.build((None, None, FEATURES))
    return layer


@given(
    st.sampled_from(sorted(OF_MATRICES)),
    st.sampled_from(sorted(OF_MATRICES)),
    st.sampled_from(sorted(set(INITIALIZERS) - {"glorot_uniform", "he_normal"})),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_weights_begin_as_those_of_keras(kernel, recurrent, bias, unit_forget_bias, seed):
    """Any initializers, with and without `unit_forget_bias`, draw bit for bit what Keras draws."""
    drawn = []
    for make in LAYERS:
        options = {
            "kernel_initializer": OF_MATRICES[kernel](seed),
            "recurrent_initializer": OF_MATRICES[recurrent](seed + 1),
            "bias_initializer": INITIALIZERS[bias](seed + 2),
            "unit_forget_bias": unit_forget_bias,
        }
        drawn.append(built(make, options).get_weights())
    agree(*drawn, row=("LSTM", "initial weights", "keras.layers.LSTM"), atol=0)
    if unit_forget_bias:
        np.testing.assert_array_equal(1, drawn[0][2][UNITS : 2 * UNITS])


KINDS = ("kernel", "recurrent", "bias", "activity")
SHAPES = ((FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,))
COEFFICIENTS = [
    tuple(np.random.default_rng(seed).choice([0.0, 0.01, 0.5], (4, 2)).tolist())
    for seed in range(8)
]
"""Of L1 and L2, for each of `KINDS`."""


@functools.cache
def regularized(make: Any, seed: int) -> Any:
    """Return a layer with the regularizers of `COEFFICIENTS[seed]`."""
    pairs = zip(KINDS, COEFFICIENTS[seed], strict=True)
    return built(
        make, {f"{kind}_regularizer": keras.regularizers.L1L2(*pair) for kind, pair in pairs}
    )


@given(st.integers(0, len(COEFFICIENTS) - 1), st.integers(0, 2**32 - 1))
def test_regularizers_add_what_they_add_in_keras(at, seed):
    """Each weight's L1 and L2 terms, and those of the outputs, are the losses."""
    random, losses = np.random.default_rng(seed), []
    weights = [random.normal(size=shape) for shape in SHAPES]
    x = random.normal(size=(3, 1, FEATURES)).astype(np.float32)
    output = np.zeros(0)
    for make in LAYERS:
        layer = regularized(make, at)
        layer.set_weights(weights)
        output = np.asarray(layer(x), np.float64)
        losses.append(sorted(float(loss) for loss in layer.losses))
    terms = [
        l1 * abs(array).sum() + l2 * (array**2).sum()
        for array, (l1, l2) in zip([*weights, output], COEFFICIENTS[at], strict=True)
    ]
    terms[3] /= len(x)
    np.testing.assert_allclose(losses[0], sorted(terms), rtol=1e-5)
    features = ("regularizers", "activity_regularizer")
    rows = [("LSTM", feature, "keras.layers.LSTM") for feature in features]
    agree_in_rows(*losses, rows=rows, rtol=1e-5)


CONSTRAINTS: dict[str, Any] = {
    "none": lambda: None,
    "non_neg": keras.constraints.NonNeg,
    "unit_norm": keras.constraints.UnitNorm,
    "max_norm": lambda: keras.constraints.MaxNorm(0.5),
    "min_max_norm": lambda: keras.constraints.MinMaxNorm(0.2, 0.6),
}


@functools.cache
def constrained(make: Any, names: tuple[str, ...]) -> tuple[Any, Any]:
    """Return a layer with constraints, and an optimizer for it."""
    pairs = zip(KINDS, names, strict=False)
    layer = built(make, {f"{kind}_constraint": CONSTRAINTS[name]() for kind, name in pairs})
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(layer.trainable_variables)
    return layer, optimizer


@given(
    st.sampled_from(sorted(CONSTRAINTS)),
    st.sampled_from(sorted(CONSTRAINTS)[:2]),
    st.integers(0, 2**32 - 1),
)
def test_constraints_hold_after_a_step_as_in_keras(name, other, seed):
    """A step of gradient descent ends where each weight's constraint lets it."""
    random, names = np.random.default_rng(seed), (name, other, name)
    weights = [random.normal(size=shape) for shape in SHAPES]
    gradients = [tf.constant(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]
    after = []
    for make in LAYERS:
        layer, optimizer = constrained(make, names)
        layer.set_weights(weights)
        optimizer.apply(gradients)
        after.append(layer.get_weights())
    for each, array in zip(names, after[0], strict=True):
        keep = CONSTRAINTS[each]() or (lambda free: free)
        np.testing.assert_allclose(keep(array), array, rtol=1e-5)
    agree(*after, row=("LSTM", "constraints", "keras.layers.LSTM"), atol=0)


ARGUMENTS = st.fixed_dictionaries(
    {"units": st.integers(1, 9)},
    optional={
        "activation": st.sampled_from([None, "tanh", "relu", "gelu"]),
        "recurrent_activation": st.sampled_from([None, "sigmoid", "hard_sigmoid"]),
        "bias_initializer": st.sampled_from(["zeros", "he_normal"]),
        "kernel_regularizer": st.sampled_from([None, "l1", "l2"]),
        "activity_regularizer": st.sampled_from([None, "l2"]),
        "recurrent_constraint": st.sampled_from([None, "unit_norm"]),
        "dropout": st.floats(0, 1),
        "recurrent_dropout": st.floats(0, 1),
        "implementation": st.sampled_from([1, 2]),
        "seed": st.none() | st.integers(0, 2**31 - 1),
        "use_cudnn": st.sampled_from(["auto", False]),
        "dtype": st.sampled_from(["float32", "float64", "mixed_float16", "mixed_bfloat16"]),
        "batch_input_shape": st.sampled_from([(2, 3, 4), (None, None, 4)]),
        **dict.fromkeys(
            ["use_bias", "unit_forget_bias", "return_sequences", "return_state", "go_backwards",
             "stateful", "time_major", "unroll", "zero_output_for_mask", "trainable"],
            st.booleans(),
        ),
    },
)  # fmt: skip


@given(ARGUMENTS)
def test_any_config_comes_back(arguments):
    """Through JSON, every argument is what it was."""
    layer = lstm_core.LSTM(**arguments)
    config = json.loads(json.dumps(layer.get_config()))
    copy = lstm_core.LSTM.from_config(config)
    assert layer.get_config() == copy.get_config()
    for name in set(arguments) - {"implementation", "dtype"}:
        assert (
            repr(getattr(layer, name)).split(" at ")[0]
            == repr(getattr(copy, name)).split(" at ")[0]
        )


# A file takes a tenth of a second, most of it Keras's.
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(pool(8, 31, has_state=[False], is_eager=[False], unroll=[False]), smallest=1))
def test_files_give_the_same_numbers(tmp_path, case):
    """A model from a `.keras` file, or weights from a `.weights.h5`, are the same to the bit."""
    config = case.config

    def make() -> Any:
        options = {"time_major": False} | config.options() | {"return_state": False}
        mask = [keras.layers.Masking()] if config.has_mask and not options["time_major"] else []
        layers = [*mask, lstm_core.LSTM(config.units, **options)]
        return keras.Sequential([keras.Input((None, config.features), dtype=config.dtype), *layers])

    model, fresh = make(), make()
    model.set_weights(case.weights)
    x = np.where(case.live[..., None], case.x, 0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert model.layers[-1].get_config() == loaded.layers[-1].get_config()
    agree(loaded(x), model(x), row=("LSTM", ".keras", "lstm_core.LSTM"), atol=0)
    agree(fresh(x), model(x), row=("LSTM", ".weights.h5", "lstm_core.LSTM"), atol=0)


MIXED = {
    "mixed_float16": (functools.partial(lstm_core.LSTM, dtype="mixed_float16"), 5e-3),
    "mixed_bfloat16": (functools.partial(lstm_core.LSTM, dtype="mixed_bfloat16"), 4e-2),
}
AS_FLOAT32 = pool(6, 32, dtype=["float32"], activations=BOUNDED, unroll=[False])


@pytest.mark.parametrize("policy", MIXED)
@given(cases(AS_FLOAT32))
def test_mixed_precision_stays_near(policy, case):
    """Outputs and states come in 16 bits, near the exact ones; weights stay float32."""
    make, atol = MIXED[policy]
    ours = subject(make, case.config).given(case.weights)
    results = ours.forward(*case.data)
    assert {policy.removeprefix("mixed_")} == {result.dtype.name for result in results}
    assert {"float32"} == {weight.dtype for weight in ours.layer.weights}
    row = ("LSTM", policy, "lstm_core.equations")
    agree([tf.cast(r, tf.float32) for r in results], case.expected(), row=row, atol=atol)


@given(cases(AS_FLOAT32[:2], smallest=1), st.sampled_from(sorted(MIXED)))
def test_gradients_in_mixed_precision_are_near(case, policy):
    """They are float32, finite, and point where the exact ones do."""
    make = MIXED[policy][0]
    mixed, exact = (
        subject(each, case.config).given(case.weights).gradients(*case.data)[-3:]
        for each in (make, lstm_core.LSTM)
    )
    for ours, reference in zip(mixed, exact, strict=True):
        assert tf.float32 == ours.dtype
        assert np.isfinite(ours).all()
        size = max(1.0, float(abs(reference.numpy()).max()))
        np.testing.assert_allclose(ours, reference, rtol=0, atol=0.15 * size)


@pytest.mark.parametrize("trainable", [True, False])
def test_trainable_decides_what_fit_moves(trainable, draw_inputs):
    """A frozen layer keeps its weights, gives no gradients and computes the same."""
    layer = lstm_core.LSTM(UNITS, trainable=trainable)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer, keras.layers.Dense(1)])
    before, x = layer.get_weights(), draw_inputs(8, 3, FEATURES)
    model.compile("sgd", "mse")
    model.fit(x, np.ones((8, 1)), verbose=0)
    moved = [(old != new).any() for old, new in zip(before, layer.get_weights(), strict=True)]
    assert [trainable] * 3 == moved
    assert (3 if trainable else 0) == len(layer.trainable_weights)
    assert 3 == len(layer.weights) - (0 if trainable else len(layer.trainable_weights))
    layer.trainable = not trainable
    assert (0 if trainable else 3) == len(layer.trainable_weights)

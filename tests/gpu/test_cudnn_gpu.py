"""cuDNN's operation itself beside the generic kernel: forward within 1e-5, gradients within 1e-4.

Run by `make test-gpu`. Nobody has run it on a GPU yet; `tests/parity/test_cudnn_rehearsal.py` runs
some of it around a stand-in for the operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core
from lstm_core.dispatch import CudnnUnavailableError

pytestmark = pytest.mark.gpu

BATCH, TIME, FEATURES, UNITS = 8, 20, 16, 32
FORWARD = {"rtol": 0, "atol": 1e-5}
GRADIENTS = {"rtol": 0, "atol": 1e-4}

MASKS: dict[str, Any] = {
    "none": None,
    "all_live": np.ones((BATCH, TIME), bool),
    "right_padded": np.arange(TIME) < np.arange(1, BATCH + 1)[:, None],
    "left_padded": np.arange(TIME) >= np.arange(BATCH)[:, None],
    "holes": np.random.default_rng(3).random((BATCH, TIME)) < 0.7,
    "a_row_without_steps": np.arange(TIME) < np.arange(BATCH)[:, None],
}
ON_CUDNN = ("none", "all_live", "right_padded")


@pytest.fixture(autouse=True)
def full_precision():
    """TensorFlow sees the GPU, and multiplies in full float32 for these tests."""
    if not tf.config.get_visible_devices("GPU"):
        pytest.skip("TensorFlow sees no GPU")
    was_enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(enabled=was_enabled)


def draw(*shape: int, seed: int = 1, scale: float = 1.0) -> Any:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def pair(**options: Any) -> list[Any]:
    """A layer that may run on cuDNN and one that must not, of the same weights."""
    layers = []
    for use_cudnn in ("auto", "never"):
        layer = lstm_core.LSTM(UNITS, use_cudnn=use_cudnn, **options)
        layer.build((None, None, FEATURES))
        shapes = [(FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)]
        layer.set_weights([draw(*shape, seed=i, scale=0.3) for i, shape in enumerate(shapes)])
        layer.count_kernels()
        layers.append(layer)
    return layers


def run(layer: Any, x: Any, states: Any, mask: Any) -> tuple[list[Any], list[Any]]:
    """Return all outputs, and the gradients of inputs, states and weights."""
    sources = [tf.convert_to_tensor(a) for a in (x, *states)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = tf.nest.flatten(layer(sources[0], initial_state=sources[1:], mask=mask))
        loss = tf.add_n([tf.reduce_sum(tf.sin(3 * y + i)) for i, y in enumerate(outputs)])
    weights = [w.value for w in layer.trainable_weights]
    return outputs, tape.gradient(loss, sources + weights)


def assert_same(actual: Any, expected: Any, tolerance: dict[str, Any]) -> None:
    """Compare all arrays."""
    for a, e in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, e, **tolerance)


@pytest.mark.parametrize("has_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(("name", "mask"), MASKS.items(), ids=MASKS.keys())
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "return_state": True, "go_backwards": True},
        {"return_sequences": True, "zero_output_for_mask": True},
        {"return_state": True, "zero_output_for_mask": True},
        {"return_sequences": True, "time_major": True},
    ],
    ids=["sequences", "backwards", "zero_output", "zero_output_last", "time_major"],
)
def test_cudnn_equals_the_generic_kernel(options, name, mask, has_graph):
    """Every option and mask gives the same numbers and gradients, and runs where it should."""
    layer, never = pair(**options)
    x, states = draw(BATCH, TIME, FEATURES), list(draw(2, BATCH, UNITS, seed=2))
    if options.get("time_major"):
        x, mask = x.swapaxes(0, 1), None if mask is None else mask.T
    mask = None if mask is None else tf.constant(mask)
    ours = (tf.function(run) if has_graph else run)(layer, x, states, mask)
    generic = run(never, x, states, mask)
    assert_same(ours[0], generic[0], FORWARD)
    assert_same(ours[1], generic[1], GRADIENTS)
    kernel = "cudnn" if name in ON_CUDNN else "tensorflow"
    assert {"block": 0, "cudnn": 0, "tensorflow": 0} | {kernel: 1} == layer.kernel_counts
    assert {"block": 0, "cudnn": 0, "tensorflow": 1} == never.kernel_counts


def test_one_graph_takes_every_mask():
    """One trace of unknown sizes decides for each call, empty ones among them."""
    layer, never = pair(return_sequences=True)
    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)]
    graph = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=signature)
    x = draw(BATCH, TIME, FEATURES)
    for mask in (m for m in MASKS.values() if m is not None):
        assert_same(graph(x, mask), never(x, mask=mask), FORWARD)
        for empty in (np.s_[:0], np.s_[:, :0]):
            assert graph(x[empty], mask[empty]).shape == (*x[empty].shape[:2], UNITS)
    assert {"block": 0, "cudnn": 2, "tensorflow": 13} == layer.kernel_counts


def test_fit_is_the_same():
    """Training through Keras, which leaves XLA off for it, moves the weights alike."""
    x = draw(4 * BATCH, TIME, FEATURES)
    x[:BATCH][~MASKS["right_padded"]] = 0
    results = []
    for layer in pair():
        model = keras.Sequential([keras.Input((None, FEATURES)), keras.layers.Masking(), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, np.ones((4 * BATCH, UNITS)), BATCH, 3, shuffle=False, verbose=0)
        results.append(layer.get_weights())
    assert_same(results[0], results[1], GRADIENTS)


def test_xla_stays_off_cudnn():
    """A function compiled by XLA runs the generic kernel; asked for cuDNN it is refused."""
    layer, _ = pair()
    x = draw(BATCH, TIME, FEATURES)
    assert_same(tf.function(layer, jit_compile=True)(x), layer(x), FORWARD)
    assert {"block": 0, "cudnn": 1, "tensorflow": 1} == layer.kernel_counts
    always = lstm_core.LSTM(UNITS, use_cudnn=True)
    always(x)
    with pytest.raises(ValueError, match="XLA"):
        tf.function(always, jit_compile=True, autograph=False)(x)


def test_asked_for_cudnn():
    """It runs there, or says why it cannot."""
    always = lstm_core.LSTM(UNITS, use_cudnn="always")
    x = draw(BATCH, TIME, FEATURES)
    always.count_kernels()
    always(x)
    assert 1 == always.kernel_counts["cudnn"]
    with pytest.raises(CudnnUnavailableError, match="not right-padded"):
        always(x, mask=MASKS["holes"])
    with tf.device("CPU:0"), pytest.raises(CudnnUnavailableError, match="placed on a CPU"):
        always(x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_precisions(policy):
    """Other dtypes agree to the precision that they have."""
    layer, never = pair(dtype=policy, return_state=True)
    x = draw(BATCH, TIME, FEATURES)
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 8e-2, "float64": 1e-12}[policy]
    ours, generic = ([tf.cast(r, tf.float64) for r in each(x)] for each in (layer, never))
    assert_same(ours, generic, {"rtol": 0, "atol": tolerance})
    assert 1 == layer.kernel_counts["cudnn"]


@pytest.mark.parametrize("go_backwards", [False, True])
def test_cudnn_lstm(go_backwards):
    """`CuDNNLSTM` gives on cuDNN what it gives on a CPU."""
    layer = lstm_core.CuDNNLSTM(UNITS, return_sequences=True, go_backwards=go_backwards)
    x = draw(BATCH, TIME, FEATURES)
    on_gpu = layer(x)
    assert "cudnn" == layer.explain_dispatch().kernel
    with tf.device("CPU:0"):
        assert_same(on_gpu, layer(x), FORWARD)


@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, np.arange(1, BATCH + 1)], ids=["full", "lengths"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_cudnn_stack(num_layers, lengths, direction):
    """`CudnnLSTM`, whole in one operation, is what it is layer by layer, gradients too."""
    layer = lstm_core.CudnnLSTM(
        num_layers, UNITS, direction=direction, bias_initializer="random_normal"
    )
    x = tf.constant(draw(TIME, BATCH, FEATURES))
    layer.build(x.shape)
    results = []
    for device in ("GPU:0", "CPU:0"):
        with tf.device(device), tf.GradientTape() as tape:
            tape.watch(x)
            outputs, states = layer(x, sequence_lengths=lengths)
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(states[0] * states[1])
        gradients = tape.gradient(loss, [x, layer.opaque_kernel.value])
        results.append(((outputs, *states), gradients))
    assert_same(results[0][0], results[1][0], FORWARD)
    assert_same(results[0][1], results[1][1], {"rtol": 1e-4, "atol": 1e-4})

"""Which kernel `lstm_core.LSTM` runs on where there is a GPU, chosen anew for each call.

A stand-in takes the place of cuDNN's operation, which needs a GPU: `tests/gpu`.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core
from lstm_core.dispatch import CudnnUnavailableError
from tests.parity.cudnn_cases import (
    BATCH,
    FEATURES,
    OTHERS,
    RIGHT_PADDED,
    TIME,
    UNITS,
    assert_same,
    put_in_place,
)

MASKS = RIGHT_PADDED | OTHERS


@pytest.fixture
def stand_in(monkeypatch):
    """A machine with a GPU, as far as TensorFlow tells, and a stand-in for cuDNN's operation."""
    return put_in_place(monkeypatch)


def make(weights, **options):
    """Build an `lstm_core.LSTM` with these weights, counting kernels."""
    layer = lstm_core.LSTM(UNITS, **options)
    layer.build((None, None, FEATURES))
    layer.set_weights(weights)
    layer.count_kernels()
    return layer


@pytest.mark.parametrize("has_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "return_state": True, "go_backwards": True},
        {"zero_output_for_mask": True},
        {"return_state": True, "time_major": True},
    ],
    ids=["sequences", "backwards", "zero_output", "time_major"],
)
def test_the_mask_decides_at_run_time(options, has_graph, stand_in, draw_weights, draw_inputs):
    """Right-padded masks run on cuDNN, all others on the generic kernel, with one answer.

    A graph is traced once for every mask: what it was traced with decides nothing.
    """
    weights = draw_weights(FEATURES, UNITS)
    layer, never = make(weights, **options), make(weights, use_cudnn="never", **options)
    x, states = draw_inputs(BATCH, TIME, FEATURES), list(draw_inputs(2, BATCH, UNITS, seed=2))
    x = x.swapaxes(0, 1) if options.get("time_major") else x
    traces = []

    def call(x, mask):
        traces.append(mask)
        return layer(x, mask=mask, initial_state=states)

    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)]
    run = tf.function(call, input_signature=signature) if has_graph else call
    counts = {"block": 0, "cudnn": 0, "tensorflow": 0}
    for name, mask in MASKS.items():
        if mask is None:
            continue
        live = mask.T if options.get("time_major") else mask
        assert_same(run(x, live), never(x, mask=live, initial_state=states))
        expected = "cudnn" if name in RIGHT_PADDED else "tensorflow"
        counts[expected] += 1
        assert counts == layer.kernel_counts, name
        assert expected == layer.explain_dispatch(mask=live).kernel
    assert counts["cudnn"] == int(stand_in.runs)
    assert (1 if has_graph else len(MASKS) - 1) == len(traces)
    assert {"block": 0, "cudnn": 0, "tensorflow": len(MASKS) - 1} == never.kernel_counts


def test_gradients_through_the_choice(stand_in, draw_weights, draw_inputs):
    """Whichever branch ran, one graph gives the gradients of the generic kernel."""
    weights = draw_weights(FEATURES, UNITS)
    layer, never = (
        make(weights, return_sequences=True, use_cudnn=use) for use in ("auto", "never")
    )

    def gradients(layer, x, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=mask)
            loss = tf.reduce_sum(y**2)
        return y, *tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

    graph = tf.function(
        lambda x, mask: gradients(layer, x, mask),
        input_signature=[
            tf.TensorSpec((None, TIME, FEATURES)), tf.TensorSpec((None, TIME), tf.bool),
        ],
    )  # fmt: skip
    x = draw_inputs(BATCH, TIME, FEATURES)
    for mask in (RIGHT_PADDED["right_padded"], OTHERS["holes"]):
        assert_same(graph(x, mask), gradients(never, tf.constant(x), mask), rtol=0, atol=1e-5)
    assert {"block": 0, "cudnn": 1, "tensorflow": 1} == layer.kernel_counts
    assert 1 == int(stand_in.runs)


@pytest.mark.parametrize("has_graph", [False, True], ids=["eager", "graph"])
def test_nothing_to_do_never_reaches_the_operation(has_graph, stand_in, draw_weights):
    """Empty batches and sequences without a mask run on the generic kernel, also if asked for."""
    for options in ({}, {"use_cudnn": True}):
        layer = make(draw_weights(FEATURES, UNITS), **options)
        run = layer
        if has_graph:
            run = tf.function(layer, input_signature=[tf.TensorSpec((None, None, FEATURES))])
        assert (0, UNITS) == run(np.zeros((0, TIME, FEATURES), np.float32)).shape
        np.testing.assert_array_equal(
            np.zeros((2, UNITS)), run(np.zeros((2, 0, FEATURES), np.float32))
        )
        assert {"block": 0, "cudnn": 0, "tensorflow": 2} == layer.kernel_counts
    assert 0 == int(stand_in.runs)


def test_empty_data_with_a_mask(stand_in, draw_weights):
    """The same, where a mask comes too, in one graph that runs other masks on cuDNN."""
    layer = make(draw_weights(FEATURES, UNITS), return_sequences=True)
    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)]
    graph = tf.function(lambda x, mask: layer(x, mask=mask), input_signature=signature)
    for run in (graph, lambda x, mask: layer(x, mask=mask)):
        for shape in ((0, TIME), (BATCH, 0), (0, 0), (BATCH, TIME)):
            x = np.zeros((*shape, FEATURES), np.float32)
            assert (*shape, UNITS) == run(x, np.ones(shape, bool)).shape
    assert {"block": 0, "cudnn": 2, "tensorflow": 6} == layer.kernel_counts
    assert 2 == int(stand_in.runs)
    assert "tensorflow" == layer.explain_dispatch(mask=np.ones((0, TIME), bool)).kernel


@pytest.mark.parametrize("mask", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.usefixtures("stand_in")
def test_asked_for_cudnn_another_mask_is_an_error(mask, draw_weights, draw_inputs):
    """Eager code raises at once, a graph when it runs; both name the condition."""
    layer = make(draw_weights(FEATURES, UNITS), use_cudnn="always", name="mine")
    x = draw_inputs(BATCH, TIME, FEATURES)
    message = "layer mine has use_cudnn=True, but cuDNN cannot run it: the mask is not right-padded"
    with pytest.raises(CudnnUnavailableError, match=message):
        layer(x, mask=mask)
    with pytest.raises(CudnnUnavailableError, match=message):
        layer.explain_dispatch(mask=mask)
    graph = tf.function(lambda x, mask: layer(x, mask=mask))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        graph(tf.constant(x), tf.constant(mask))
    good = RIGHT_PADDED["right_padded"]
    assert_same(graph(tf.constant(x), tf.constant(good)), layer(x, mask=good))
    assert {"block": 0, "cudnn": 2, "tensorflow": 0} == layer.kernel_counts


def test_asked_for_cudnn_the_configuration_is_checked_at_once():
    """What no hardware can run is refused when the layer is made, naming the option."""
    for options, obstacle in (
        ({"activation": "relu"}, "activation is relu, not tanh"),
        ({"activation": keras.ops.sin}, "activation is sin, not tanh"),
        ({"recurrent_activation": None}, "recurrent_activation is linear, not sigmoid"),
        ({"recurrent_dropout": 0.1}, "recurrent_dropout is 0.1, not 0"),
        ({"unroll": True}, "unroll is on"),
        ({"use_bias": False}, "use_bias is off"),
        ({"dropout": 0.1, "implementation": 1}, "implementation 1 draws a dropout mask"),
    ):
        with pytest.raises(ValueError, match=f"cuDNN cannot run it: {obstacle}"):
            lstm_core.LSTM(UNITS, use_cudnn=True, **options)


def test_asked_for_cudnn_without_a_gpu(monkeypatch, draw_weights, draw_inputs):
    """The layer can be made, built, saved and put in a model; calling it names what is missing."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _=None: [])
    layer = make(draw_weights(FEATURES, UNITS), use_cudnn=True)
    x = keras.Input((None, FEATURES))
    model = keras.Model(x, layer(x))
    for call in (layer, layer.explain_dispatch, model):
        with pytest.raises(ValueError, match="cuDNN cannot run it: TensorFlow sees no GPU"):
            call(*([] if call == layer.explain_dispatch else [draw_inputs(2, 3, FEATURES)]))


@pytest.mark.usefixtures("stand_in")
def test_xla_gets_the_generic_kernel(draw_weights, draw_inputs):
    """Compiled by XLA a call stays off cuDNN, or is refused, and says why; Keras leaves XLA off."""
    weights = draw_weights(FEATURES, UNITS)
    x, mask = draw_inputs(BATCH, TIME, FEATURES), RIGHT_PADDED["right_padded"]
    layer, always = make(weights), make(weights, use_cudnn=True)
    reasons = []

    @tf.function(jit_compile=True)
    def compiled(x, mask):
        reasons.append(layer.explain_dispatch().reason)
        return tf.function(lambda: layer(x, mask=mask))()

    assert_same(compiled(x, mask), layer(x, mask=mask))
    (reason,) = reasons
    assert "not cudnn: XLA (jit_compile) does not take cuDNN's operation" in reason
    assert {"block": 0, "cudnn": 1, "tensorflow": 1} == layer.kernel_counts
    with pytest.raises(ValueError, match="XLA"):
        tf.function(always, jit_compile=True, autograph=False)(x)
    assert not layer.supports_jit
    assert lstm_core.LSTM(UNITS, use_cudnn=False).supports_jit
    assert lstm_core.LSTM(UNITS, "relu").supports_jit


def test_without_a_gpu_keras_may_use_xla():
    """On a CPU nothing keeps XLA away."""
    if tf.config.get_visible_devices("GPU"):
        pytest.skip("this machine has a GPU")
    assert lstm_core.LSTM(UNITS).supports_jit


@pytest.mark.parametrize("has_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.usefixtures("stand_in")
def test_a_call_placed_on_a_cpu_stays_there(has_graph, draw_weights, draw_inputs):
    """Under `tf.device` a call does not go to the GPU behind the caller's back."""
    layer = make(draw_weights(FEATURES, UNITS))

    def call(x):
        with tf.device("CPU:0"):
            return layer(x)

    (tf.function(call) if has_graph else call)(draw_inputs(BATCH, TIME, FEATURES))
    assert {"block": 0, "cudnn": 0, "tensorflow": 1} == layer.kernel_counts


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.usefixtures("stand_in")
def test_dropout_is_one_mask_over_time(implementation, draw_weights, draw_inputs):
    """One mask for all gates runs on cuDNN, with the generic kernel's numbers; four do not."""
    options = {"dropout": 0.5, "implementation": implementation, "seed": 3}
    weights = draw_weights(FEATURES, UNITS)
    layer, never = make(weights, **options), make(weights, use_cudnn=False, **options)
    x = draw_inputs(BATCH, TIME, FEATURES)
    assert_same(layer(x, training=True), never(x, training=True))
    assert (implementation - 1) == layer.kernel_counts["cudnn"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.usefixtures("stand_in")
def test_precisions(policy, draw_weights, draw_inputs):
    """Other dtypes come out as they do on the generic kernel, to the precision they have."""
    weights = draw_weights(FEATURES, UNITS)
    options = {"dtype": policy, "return_state": True}
    layer, never = make(weights, **options), make(weights, use_cudnn=False, **options)
    x = draw_inputs(BATCH, TIME, FEATURES)
    ours, generic = layer(x), never(x)
    assert [r.dtype for r in generic] == [r.dtype for r in ours]
    tolerance = {"mixed_float16": 5e-3, "mixed_bfloat16": 5e-2, "float64": 1e-14}[policy]
    assert_same(
        [tf.cast(r, tf.float64) for r in ours], [tf.cast(r, tf.float64) for r in generic],
        rtol=0, atol=tolerance,
    )  # fmt: skip
    assert 1 == layer.kernel_counts["cudnn"]


@pytest.mark.usefixtures("stand_in")
def test_fit_on_both_kernels_is_the_same(draw_weights, draw_inputs):
    """Training a stateful layer through Keras, masks and all, moves weights and states alike."""
    x = draw_inputs(2 * BATCH, TIME, FEATURES)
    x[:BATCH][~RIGHT_PADDED["right_padded"]] = 0
    x[BATCH:][~OTHERS["left_padded"]] = 0
    results = []
    for use_cudnn in ("auto", "never"):
        layer = lstm_core.LSTM(UNITS, stateful=True, use_cudnn=use_cudnn)
        layer.count_kernels()
        model = keras.Sequential(
            [keras.Input(batch_shape=(BATCH, TIME, FEATURES)), keras.layers.Masking(), layer]
        )
        layer.set_weights(draw_weights(FEATURES, UNITS))
        model.compile("sgd", "mse")
        model.fit(x, np.ones((2 * BATCH, UNITS)), BATCH, 1, shuffle=False, verbose=0)
        assert layer.states is not None
        results.append([*layer.get_weights(), *(np.asarray(s) for s in layer.states)])
        expected = (0, 1, 1) if use_cudnn == "auto" else (0, 0, 2)
        assert expected == tuple(layer.kernel_counts.values())
    assert_same(results[0], results[1])


def test_kernels_are_counted_only_if_asked_for(draw_inputs):
    """Nothing is counted, kept or saved before `count_kernels`; twice is once."""
    layer = lstm_core.LSTM(UNITS, name="mine")
    layer(draw_inputs(BATCH, TIME, FEATURES))
    with pytest.raises(RuntimeError, match="layer mine counts no kernels"):
        _ = layer.kernel_counts
    variables = list(layer.variables)
    layer.count_kernels()
    layer(draw_inputs(BATCH, TIME, FEATURES))
    layer.count_kernels()
    assert 1 == sum(layer.kernel_counts.values())
    assert [id(v) for v in variables] == [id(v) for v in layer.variables]

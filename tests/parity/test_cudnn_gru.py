"""cuDNN's GRU around a stand-in for the operation: Keras's numbers, the buffer, who gets it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from lstm_core.kernels import cudnn, cudnn_gru, cudnn_gru_layout
from lstm_core.runtime.tensorflow_layers import recurrence_of
from lstm_core.runtime.tensorflow_model import StatefulModel
from tests.parity.cudnn_cases import (
    BATCH,
    FEATURES,
    RIGHT_PADDED,
    TIME,
    UNITS,
    assert_same,
    put_in_place,
)

layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


def build(**options: Any) -> Any:
    """Return a GRU layer of Keras with weights that none starts with."""
    layer = layers.GRU(UNITS, return_sequences=True, **options)
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(0, 0.5, w.shape) for w in layer.weights])
    return layer


@pytest.mark.parametrize("is_rocm", [False, True], ids=["cuda", "rocm"])
@pytest.mark.parametrize("zero_output", [False, True], ids=["repeat", "zero_output"])
def test_the_kernel_equals_keras(monkeypatch, is_rocm, zero_output):
    """With every mask that cuDNN takes, from a state that is not zero, in both orders of gates."""
    stand_in = put_in_place(monkeypatch)
    if is_rocm:
        stand_in.gru_gates = "zrn"
        monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_rocm_build": True})
    layer = build(zero_output_for_mask=zero_output)
    kernel, recurrent_kernel, bias = layer.get_weights()
    order = cudnn_gru.gate_order()
    params = cudnn_gru_layout.pack(kernel, recurrent_kernel, bias, gate_order=order)
    random = np.random.default_rng(1)
    x = random.normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
    h = random.normal(size=(BATCH, UNITS)).astype(np.float32)
    for mask in RIGHT_PADDED.values():
        expected = layer(x, initial_state=h, mask=mask)
        outputs, last_h = cudnn_gru.sequence(
            tf.constant(params),
            tf.constant(x.swapaxes(0, 1)),
            h=tf.constant(h),
            mask=None if mask is None else tf.constant(mask.T),
            zero_output_for_mask=zero_output,
        )
        assert_same(np.swapaxes(outputs, 0, 1), expected)
        ends = np.full(BATCH, TIME) if mask is None else mask.sum(axis=1)
        at_end = np.asarray(expected)[np.arange(BATCH), ends - 1]
        assert_same(last_h, at_end)


@pytest.mark.parametrize(
    ("options", "num_gpus", "kernel", "reason"),
    [
        ({}, 1, "cudnn", "cuDNN's conditions hold"),
        ({}, 0, "tensorflow", "not cudnn: TensorFlow sees no GPU"),
        ({"reset_after": False}, 1, "tensorflow", "not cudnn: reset_after is off"),
        ({"use_bias": False}, 1, "tensorflow", "use_bias is off"),
        ({"activation": "relu"}, 1, "tensorflow", "activation is relu, not tanh"),
        ({"recurrent_activation": "tanh"}, 1, "tensorflow", "is tanh, not sigmoid"),
    ],
    ids=str,
)
def test_who_gets_it_and_why(options, num_gpus, kernel, reason):
    """The conditions of Keras's own GRU."""
    recurrence = recurrence_of(build(**options), "gru", UNITS, num_gpus)
    assert kernel == recurrence.dispatch.kernel
    assert reason in recurrence.dispatch.reason
    assert (kernel == "cudnn") == (recurrence.step_on_cudnn is not None)


def test_a_cudnn_that_fails_or_gives_something_else_runs_nothing(monkeypatch):
    """It is tried when a model is opened, and the reason says what came of it."""
    # With c in 16 bits there, and in 32 on the other kernels: no reason to keep off it.
    options = {"return_sequences": True, "dtype": "mixed_float16"}
    chain = [layers.LSTM(UNITS, **options), layers.GRU(5, **options)]
    keras_model = keras.Sequential([keras.Input((None, FEATURES)), *chain])

    def chosen() -> list[tuple[str, str]]:
        model = StatefulModel(keras_model, num_gpus=1)
        found = [layer.dispatch for layer in model.layers if layer.dispatch is not None]
        has_steps = model.with_steps_on_cudnn() is not None
        assert has_steps == any(each.kernel == "cudnn" for each in found)
        return [(each.kernel, each.reason) for each in found]

    differs = "not cudnn: it gives something else here than TensorFlow operations"
    fails = "not cudnn: it fails here: no such version"

    stand_in = put_in_place(monkeypatch)
    assert ["cudnn", "cudnn"] == [kernel for kernel, _ in chosen()]
    stand_in.gru_gates = "zrn"
    assert ["cudnn", "tensorflow"] == [kernel for kernel, _ in chosen()]
    stand_in.gates = "ifoc"
    assert all(kernel == "tensorflow" and differs in reason for kernel, reason in chosen())

    def fail(**_: Any) -> None:
        raise tf.errors.UnknownError(None, None, "no such version\nand where it was asked for")

    monkeypatch.setattr(cudnn, "operation", fail)
    expected = "TensorFlow operations take every case; " + fails
    assert ("tensorflow", expected) == chosen()[1]
    assert fails in chosen()[0][1]


def test_the_operation_itself_has_its_place_in_a_graph(monkeypatch):
    """Not the stand-in: TensorFlow infers the shapes of steps and sequences without a GPU.

    The weights come packed into a step's graph, which would spend its time on that otherwise.
    """
    chain = [layers.LSTM(UNITS, return_sequences=True), layers.GRU(5)]
    with monkeypatch.context() as during_the_trial:
        put_in_place(during_the_trial)
        model = StatefulModel(keras.Sequential([keras.Input((None, FEATURES)), *chain]), num_gpus=1)
    on_cudnn = model.with_steps_on_cudnn()
    assert on_cudnn is not None

    def trace(network: StatefulModel, time: int | None) -> Any:
        def take(x: Any, rows: Any, flags: Any) -> Any:
            return network.take(x, rows, flags, None)

        signature = [
            tf.TensorSpec((None, time, FEATURES)),
            tf.TensorSpec((None, network.state_size)),
            tf.TensorSpec((None, network.num_recurrent), tf.bool),
        ]
        graph = tf.function(take, input_signature=signature, autograph=False)
        concrete = graph.get_concrete_function()
        outputs, rows, _ = concrete.structured_outputs
        assert (5, 2 * UNITS + 5) == (outputs.shape[-1], rows.shape[-1])
        return concrete.graph

    def modes(nodes: Any) -> list[bytes]:
        return [node.attr["rnn_mode"].s for node in nodes if node.op == "CudnnRNNV3"]

    on_step = trace(on_cudnn, 1)
    assert [b"lstm", b"gru"] == modes(on_step.as_graph_def().node)
    found = [each for each in on_step.get_operations() if each.type == "CudnnRNNV3"]
    assert ["Placeholder", "Placeholder"] == [each.inputs[3].op.type for each in found]
    plain = trace(model, 1).as_graph_def()
    assert [] == modes(plain.node)
    branches = trace(model, None).as_graph_def().library.function
    assert [b"gru", b"lstm"] == sorted(modes(node for f in branches for node in f.node_def))

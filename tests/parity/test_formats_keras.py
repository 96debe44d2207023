"""`read_keras` beside Keras itself: recurrent layers, real files, the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity.keras_models import MARKS, TIME, check_parity, keras, layers, save, sequential

pytestmark = MARKS


LSTMS = {
    "sequences": lambda: [layers.LSTM(4, return_sequences=True)],
    "last": lambda: [layers.LSTM(4)],
    "no bias": lambda: [layers.LSTM(4, use_bias=False)],
    "activations": lambda: [
        layers.LSTM(4, activation="softsign", recurrent_activation="hard_sigmoid")
    ],
    "activation None": lambda: [
        layers.LSTM(2, activation=None, return_sequences=True),
        layers.LSTM(2, recurrent_activation=None),
    ],
    "activation function": lambda: [layers.LSTM(4, activation=keras.activations.elu)],
    "training options": lambda: [
        layers.LSTM(
            4,
            dropout=0.3,
            recurrent_dropout=0.2,
            kernel_regularizer="l2",
            bias_constraint="max_norm",
            activity_regularizer="l1",
            return_sequences=True,
        )
    ],
    "zero output": lambda: [layers.LSTM(4, return_sequences=True, zero_output_for_mask=True)],
    "zero last output": lambda: [layers.LSTM(4, zero_output_for_mask=True)],
    "backwards": lambda: [layers.LSTM(4, go_backwards=True)],
    "backwards sequences": lambda: [
        layers.LSTM(4, go_backwards=True, return_sequences=True, zero_output_for_mask=True)
    ],
    "backwards then on": lambda: [
        layers.LSTM(4, go_backwards=True, return_sequences=True),
        layers.LSTM(3, return_sequences=True),
    ],
    "stacked": lambda: [
        layers.LSTM(4, return_sequences=True),
        layers.LSTM(3, return_sequences=True),
        layers.LSTM(5),
    ],
    "RNN of a cell": lambda: [layers.RNN(layers.LSTMCell(4), return_sequences=True)],
    "RNN of cells": lambda: [
        layers.RNN([layers.LSTMCell(4), layers.LSTMCell(3)], return_sequences=True)
    ],
    "StackedRNNCells": lambda: [
        layers.RNN(
            layers.StackedRNNCells([layers.LSTMCell(2), layers.LSTMCell(3, use_bias=False)]),
            zero_output_for_mask=True,
        )
    ],
}


@pytest.mark.parametrize("is_masked", [False, True], ids=["live", "masked"])
@pytest.mark.parametrize("name", LSTMS)
def test_lstm_arguments(name, is_masked, tmp_path):
    """Every argument of an LSTM that matters at inference gives Keras's numbers."""
    masking = [layers.Masking()] if is_masked else []
    check_parity(sequential(*masking, *LSTMS[name]()), tmp_path)


def test_stateful_unrolled_lstm_is_read_from_zeros(tmp_path):
    """A stateful, unrolled model of fixed shape is read as any other."""
    lstm = layers.LSTM(4, stateful=True, unroll=True, return_sequences=True)
    model = sequential(layers.Masking(), lstm, batch=4, time=TIME)
    check_parity(model, tmp_path, is_compiled=True)


@pytest.mark.parametrize(
    "activation",
    [
        "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "linear",
        "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax",
        "softplus", "softsign", "tanh",
    ],
)  # fmt: skip
def test_every_activation(activation, tmp_path):
    """Every activation known here is Keras's function of that name, as argument and as layer."""
    chain = [
        layers.Dense(5, activation=activation),
        layers.LSTM(2, return_sequences=True),
        layers.Activation(activation),
    ]
    check_parity(sequential(*chain), tmp_path)


BIDIRECTIONALS = {
    "concat": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
    "sum": lambda: layers.Bidirectional(layers.LSTM(4), merge_mode="sum"),
    "mul": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="mul"),
    "ave": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="ave"),
    "backward_layer": lambda: layers.Bidirectional(
        layers.LSTM(4, return_sequences=True),
        backward_layer=layers.LSTM(
            4, return_sequences=True, go_backwards=True, activation="relu", use_bias=False
        ),
    ),
    "reversed": lambda: layers.Bidirectional(
        layers.LSTM(4, return_sequences=True, go_backwards=True),
        backward_layer=layers.LSTM(4, return_sequences=True),
    ),
    "zero_output": lambda: layers.Bidirectional(layers.LSTM(4, zero_output_for_mask=True)),
    "RNN": lambda: layers.Bidirectional(layers.RNN(layers.LSTMCell(4), return_sequences=True)),
}


@pytest.mark.parametrize("is_masked", [False, True], ids=["live", "masked"])
@pytest.mark.parametrize("name", BIDIRECTIONALS)
def test_bidirectional(name, is_masked, tmp_path):
    """Both directions, every merge mode, with and without a mask that goes on behind it."""
    masking = [layers.Masking()] if is_masked else []
    bidirectional = BIDIRECTIONALS[name]()
    tail = [layers.LSTM(3)] if bidirectional.return_sequences else [layers.Dense(2)]
    network = check_parity(sequential(*masking, bidirectional, *tail), tmp_path)
    assert network.streaming_obstacles == [
        "bidirectional runs in both directions, so it needs the whole sequence at once"
    ]


def test_same_classes_get_their_own_weights(tmp_path):
    """Layers of one class in any number, with other names and between others, keep their order."""
    chain = [layers.Dense(3, name=f"z{9 - i}") for i in range(3)]
    chain += [layers.LSTM(3, return_sequences=True, name=f"b{i % 2}{i}") for i in range(12)]
    check_parity(sequential(*chain, layers.Dense(3, name="dense")), tmp_path, rtol=3e-6)


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("mixed_float16", 3e-3), ("mixed_bfloat16", 3e-2), ("bfloat16", 3e-2), ("float64", 1e-6)],
)
def test_other_precisions_compute_in_float32(policy, tolerance, tmp_path):
    """A model of another precision is read, and agrees within that precision."""
    # bfloat16 has no orthogonal initialisation (QR).
    lstm = layers.LSTM(4, return_sequences=True, dtype=policy, recurrent_initializer="uniform")
    model = sequential(lstm, layers.Dense(2, dtype=policy))
    check_parity(model, tmp_path, rtol=tolerance)


def test_reading_and_predicting_imports_neither_keras_nor_tensorflow(tmp_path):
    """A service without TensorFlow can read and run a file."""
    path = save(sequential(layers.Masking(), layers.LSTM(4), layers.Dense(2)), tmp_path)
    script = (
        "import sys, numpy as np\n"
        "from lstm_core.formats.keras import read_keras\n"
        "from lstm_core.runtime.cpu import CpuRuntime\n"
        "runtime = CpuRuntime(read_keras(sys.argv[1]), 1)\n"
        "assert runtime.predict(np.ones((1, 5, 3), np.float32)).shape == (1, 2)\n"
        "assert not {'keras', 'tensorflow', 'ml_dtypes'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=Path.cwd())

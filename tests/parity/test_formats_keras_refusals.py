"""`read_keras` on Keras's own files that cannot be served: every layer in the way is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from tests.parity.keras_models import FEATURES, MARKS, keras, layers, sequential

pytestmark = MARKS


def refusals(model: Any, directory: Path) -> list[str]:
    """Return the problems that a saved model is refused for."""
    path = directory / "model.keras"
    model.save(path)
    with pytest.raises(FormatError, match=f"written by Keras {keras.__version__}") as caught:
        read_keras(path)
    return caught.value.problems


@keras.saving.register_keras_serializable(package="Test")
def doubled(x: Any) -> Any:
    """Return `2 x`."""
    return 2 * x


@keras.saving.register_keras_serializable(package="Test", name="LSTM")
class ForeignLSTM(keras.layers.LSTM):
    """A custom layer of a familiar name."""


def test_every_layer_that_cannot_be_read_is_named(tmp_path):
    """One error names each layer and its reason, also where one has the name of a known class."""
    tuned = layers.Dense(8, name="tuned")
    model = sequential(
        layers.LSTM(4, return_sequences=True, activation=doubled),
        ForeignLSTM(4, return_sequences=True, name="foreign"),
        layers.GRU(4, return_sequences=True),
        layers.Lambda(lambda x: x),
        layers.Dense(8, name="small"),
        tuned,
        layers.Conv1D(4, 2),
        layers.TimeDistributed(layers.Reshape((2, 2))),
        layers.Reshape((-1, 4)),
        layers.BatchNormalization(),
        layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        layers.RNN(layers.GRUCell(3), return_sequences=True),
        layers.LSTM(3, activation="softmax", return_sequences=True, name="soft"),
        layers.Dense(2, activation=layers.ReLU()),
        layers.GlobalAveragePooling1D(),
        time=5,
    )
    next(layer for layer in model.layers if layer.name == "small").quantize("int8")
    tuned.enable_lora(2)
    problems = refusals(model, tmp_path)
    expected = [
        ("lstm", "activation Test>doubled is code"),
        ("foreign", "is a Test>LSTM, a custom layer"),
        ("gru", "is a GRU"),
        ("lambda", "Python code, which is never run"),
        ("small", "quantised"),
        ("tuned", "LoRA"),
        ("conv1d", "is a Conv1D"),
        ("time_distributed", "cannot serve a Reshape for each time step"),
        ("reshape_1", "is a Reshape"),
        ("bidirectional", "wraps a GRU"),
        ("rnn", "its cell is a GRUCell"),
        ("soft", "unknown activation 'softmax'"),
        ("dense", "activation ReLU is code or a layer"),
        ("global_average_pooling1d", "is a GlobalAveragePooling1D"),
    ]
    assert [problem.split(":")[0] for problem in problems] == [name for name, _ in expected]
    for problem, (_, reason) in zip(problems, expected, strict=True):
        assert reason in problem


def test_what_cannot_be_served_in_a_branch_is_named(tmp_path):
    """A graph is no reason to refuse a model, but what stands in it may be."""
    inputs = keras.Input((None, FEATURES))
    x = layers.LSTM(4, return_sequences=True)(inputs)
    y = layers.GRU(4, return_sequences=True)(x)
    problems = refusals(keras.Model(inputs, layers.Dense(2)(layers.Add()([x, y]))), tmp_path)
    assert [problem.split(":")[0] for problem in problems] == ["gru"]


def test_wirings_that_are_refused(tmp_path):
    """States, masks, training, fixed inputs, mixed times: each has its reason."""
    inputs = keras.Input((4, FEATURES))
    lstm = layers.LSTM(FEATURES, return_sequences=True, return_state=True, name="lstm")
    sequence, h, c = lstm(inputs)

    def refused(outputs: Any, first: Any = inputs) -> str:
        return " ".join(refusals(keras.Model(first, outputs), tmp_path))

    assert "lstm: gives its output number 1 on, a state" in refused([sequence, h, c])
    assert "lstm: gives its output number 1 on, a state" in refused(layers.Dense(1)(h))
    decoder = layers.LSTM(FEATURES, name="decoder")
    assert "decoder: is called with initial_state" in refused(
        decoder(sequence, initial_state=[h, c])
    )
    dropout = layers.Dropout(0.5, name="dropout")
    assert "dropout: is called with training=True" in refused(dropout(sequence, training=True))
    other = keras.Input((4,), dtype="bool", name="given")
    masked = layers.LSTM(2, name="masked")(sequence, mask=other)
    assert "masked: is called with a mask that is not" in refused(masked, [inputs, other])
    fixed = keras.Input((FEATURES,), name="fixed")
    last = layers.Add()([layers.LSTM(FEATURES)(inputs), fixed])
    assert "fixed: has shape [None, 3]" in refused(last, [inputs, fixed])
    own_mask = keras.ops.any(keras.ops.not_equal(inputs, 7.0), axis=-1)
    masked = layers.LSTM(2, name="masked")(sequence, mask=own_mask)
    assert "masked: is called with a mask that is not that of the layers" in refused(masked)
    last = layers.LSTM(FEATURES, name="last")(sequence)
    mixed = layers.Add(name="mixed")([sequence, last])
    assert "mixed: joins what is there at each time step with what only" in refused(mixed)
    assert "is the operation TrueDivide with a constant" in refused(1 / sequence)
    masked = layers.Masking()(inputs)
    product = layers.Multiply(name="product")([masked, sequence])
    assert "product: is a Multiply behind a mask" in refused(product)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (lambda: [layers.LSTM(4, return_state=True)], "lstm: gives its states on"),
        (lambda: [layers.Bidirectional(layers.LSTM(4), merge_mode=None)], "merge_mode is None"),
        (
            lambda: [layers.RNN([layers.LSTMCell(4), layers.LSTMCell(3)], go_backwards=True)],
            "several cells backwards",
        ),
        (lambda: [layers.LayerNormalization(axis=1), layers.LSTM(2)], "along axis [1]"),
        (lambda: [layers.Normalization(axis=(1, 2)), layers.LSTM(2)], "along axis [1, 2]"),
        (lambda: [layers.PReLU(), layers.LSTM(2)], "slopes of its own for each time step"),
        (lambda: [layers.Softmax(axis=1), layers.LSTM(2)], "along axis 1"),
        (lambda: [layers.Dense(2)], "there is no recurrent layer"),
    ],
)
def test_arguments_that_cannot_be_served(chain, reason, tmp_path):
    """Arguments that a network cannot express are refused with their reason."""
    assert reason in " ".join(refusals(sequential(*chain(), time=5), tmp_path))


def test_softmax_layer_that_a_mask_reaches_is_refused(tmp_path):
    """Keras applies the mask to the features there: it fails, or is silently wrong where T = F."""
    model = keras.Sequential(
        [keras.Input((FEATURES, FEATURES)), layers.Masking(), layers.Softmax(), layers.LSTM(2)]
    )
    assert "softmax: Keras applies the time steps' mask" in refusals(model, tmp_path)[0]


@pytest.mark.parametrize("shape", [(FEATURES,), (4, 5, FEATURES)])
def test_inputs_of_other_ranks_are_refused(shape, tmp_path):
    """A network takes features or integers over time, nothing else."""
    flat = layers.Reshape((-1, FEATURES))
    model = keras.Sequential([keras.Input(shape), flat, layers.LSTM(2)])
    problems = refusals(model, tmp_path)
    assert [p.split(":")[0] for p in problems] == ["input_layer", "reshape"]


def test_other_files_of_keras_are_told_apart(tmp_path):
    """Legacy HDF5 models, mere weights, SavedModels and unpacked models say what they are."""
    model = sequential(layers.LSTM(2))
    model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "model.weights.h5")
    keras.saving.save_model(model, tmp_path / "unpacked", zipped=False)
    for name, what in (
        ("model.h5", "HDF5"),
        ("model.weights.h5", "HDF5"),
        ("unpacked", "a directory"),
    ):
        with pytest.raises(FormatError, match=what):
            read_keras(tmp_path / name)

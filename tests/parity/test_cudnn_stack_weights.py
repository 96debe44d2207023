"""The weights of `CudnnLSTM`: how they begin, and the ways in and out of its buffer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from lstm_core.errors import WeightsError
from tests.parity.cudnn_cases import UNITS, make_stack


def test_stack_weights_round_trip():
    """Canonical arrays, LSTM weights and contrib's checkpoint arrays each carry everything."""
    source, target = make_stack(2, "bidirectional"), make_stack(2, "bidirectional")
    sums = [w.bias for w in source.lstm_weights()]
    target.set_canonical_weights(*source.canonical_weights())
    np.testing.assert_array_equal(source.opaque_kernel, target.opaque_kernel)
    for copy in (
        lambda: target.set_lstm_weights(source.lstm_weights()),
        lambda: target.set_checkpoint_arrays(
            {"opaque_kernel": np.zeros(3)} | source.checkpoint_arrays()
        ),
    ):
        target.opaque_kernel.assign(0 * target.opaque_kernel)
        copy()
        for a, b in zip(source.canonical_weights()[0], target.canonical_weights()[0], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(sums, [w.bias for w in target.lstm_weights()])
        biases = np.reshape(target.canonical_weights()[1], (4, 2, -1))
        np.testing.assert_array_equal(biases[:, 0], biases[:, 1])
    with pytest.raises(WeightsError):
        target.set_canonical_weights(source.canonical_weights()[0], [])
    with pytest.raises(KeyError, match="stack_bidirectional_rnn/cell_0"):
        target.set_checkpoint_arrays({})


def test_stack_checkpoint_restores_by_name(tmp_path):
    """Arrays that TensorFlow's own saver wrote under contrib's names come back from the file."""
    source, target = make_stack(2), make_stack(2)
    arrays = source.checkpoint_arrays()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in arrays.items():
            tf.compat.v1.get_variable(f"cudnn_lstm/{name}", initializer=array)
        session.run(tf.compat.v1.global_variables_initializer())
        path = tf.compat.v1.train.Saver().save(session, str(tmp_path / "model"))
    reader = tf.train.load_checkpoint(path)
    names = reader.get_variable_to_shape_map()
    assert "cudnn_lstm/rnn/multi_rnn_cell/cell_1/cudnn_compatible_lstm_cell/kernel" in names
    target.set_checkpoint_arrays(
        {name.removeprefix("cudnn_lstm/"): reader.get_tensor(name) for name in names}
    )
    for a, b in zip(source.lstm_weights(), target.lstm_weights(), strict=True):
        np.testing.assert_array_equal(a.kernel, b.kernel)
        np.testing.assert_array_equal(a.recurrent_kernel, b.recurrent_kernel)
        np.testing.assert_array_equal(a.bias, b.bias)


@pytest.mark.parametrize("initializer", [None, "glorot_normal", keras.initializers.HeNormal(3)])
def test_stack_draws_every_matrix_anew(initializer):
    """Gates of one shape do not begin alike, though a Keras initializer repeats itself."""
    layers = [
        lstm_core.CudnnLSTM(2, UNITS, kernel_initializer=initializer, seed=5) for _ in range(2)
    ]
    for layer in layers:
        layer.build((None, None, UNITS))
    matrices = layers[0].canonical_weights()[0]
    assert len(matrices) == len({matrix.tobytes() for matrix in matrices})
    if not isinstance(initializer, str):
        np.testing.assert_array_equal(layers[0].opaque_kernel, layers[1].opaque_kernel)

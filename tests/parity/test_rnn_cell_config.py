"""`lstm_core.LSTMCell` as a configuration, also one of its peers', and copies of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import keras
import tensorflow as tf
import tf_keras
from tensorflow.python.ops import rnn_cell_impl
from tf_keras.src.layers.rnn import legacy_cells

from lstm_core import LSTMCell
from tests.parity.rnn_cell_cases import FULL, built, step_of


def test_configuration_survives_json():
    """Every argument comes back, and so do the numbers."""
    cell = built(LSTMCell(**FULL, initializer="he_normal", trainable=False, dtype="float64"))

    config = json.loads(json.dumps(cell.get_config()))
    again = built(LSTMCell.from_config(config))
    again.set_weights(cell.get_weights())

    assert cell.get_config() == again.get_config()
    assert FULL.items() <= config.items()
    assert not again.trainable_weights
    for expected, actual in zip(step_of(cell)[1], step_of(again)[1], strict=True):
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "initializer",
    [None, "he_normal", tf.compat.v1.ones_initializer(), tf_keras.initializers.Ones()],
)
@pytest.mark.parametrize("peer", [rnn_cell_impl.LSTMCell, legacy_cells.LSTMCell])
def test_a_configuration_of_the_peer_makes_a_cell(peer, initializer):
    """What `get_config` of TensorFlow's own cell gives are keyword arguments of ours."""
    theirs = peer(**FULL, initializer=initializer, trainable=False, dtype="float64")

    cell = LSTMCell.from_config(theirs.get_config())

    config = cell.get_config()
    assert FULL.items() <= config.items()
    assert (theirs.name, "float64", False) == (cell.name, cell.dtype, cell.trainable)
    if initializer is not None and initializer != "he_normal":
        assert isinstance(cell.initializer, keras.initializers.Ones)


@pytest.mark.parametrize(
    "initializer",
    [
        tf.compat.v1.orthogonal_initializer(gain=2.0),
        tf_keras.initializers.Orthogonal(gain=2.0),
        keras.initializers.Orthogonal(gain=2.0),
        {"class_name": "Orthogonal", "config": {"gain": 2.0, "dtype": "float32"}},
    ],
)
def test_initializers_of_earlier_releases_survive_json(initializer):
    """They come back as Keras 3's of the same name and arguments."""
    cell = LSTMCell(4, initializer=initializer)

    again = LSTMCell.from_config(json.loads(json.dumps(cell.get_config())))

    assert isinstance(again.initializer, keras.initializers.Orthogonal)
    assert 2.0 == again.initializer.gain


@pytest.mark.parametrize("reuse", [None, False, True, tf.compat.v1.AUTO_REUSE])
def test_reuse_survives_json(reuse):
    """AUTO_REUSE, which is no JSON, goes by its name."""
    config = json.loads(json.dumps(LSTMCell(4, reuse=reuse).get_config()))

    assert ("AUTO_REUSE" if reuse is tf.compat.v1.AUTO_REUSE else reuse) == config["reuse"]
    assert config == LSTMCell.from_config(config).get_config()


def test_a_deep_copy_has_functions_that_no_config_holds():
    """A local activation goes along, and the one list of a memo stays one."""

    def double(x: Any) -> Any:
        return 2 * x

    cell = LSTMCell(4, activation=double, dtype="float32")
    expected, _ = step_of(cell)

    first, second = copy.deepcopy([cell, cell])

    assert first is second
    np.testing.assert_array_equal(expected, step_of(first)[0])


@pytest.mark.parametrize("reuse", [None, True])
def test_a_deep_copy_has_weights_of_its_own(reuse):
    """The same numbers, in other variables, whatever `reuse` says."""
    original = LSTMCell(**FULL)
    output, _ = step_of(original)
    cell = LSTMCell(**FULL, name=original.scope_name, reuse=reuse) if reuse else original
    step_of(cell)

    copied = copy.deepcopy(cell)

    assert reuse == copied.get_config()["reuse"]
    np.testing.assert_array_equal(output, step_of(copied)[0])
    assert not any(a is b for a, b in zip(cell.weights, copied.weights, strict=True))

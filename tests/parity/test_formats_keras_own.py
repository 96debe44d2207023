"""`read_keras` on files that hold `lstm_core.LSTM`."""

from __future__ import annotations

from typing import Any

import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from tests.parity.keras_models import FEATURES, MARKS, check_parity, keras, layers, sequential

pytestmark = MARKS


OWN_LSTMS: dict[str, dict[str, Any]] = {
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "zero_output_for_mask": {"return_sequences": True, "zero_output_for_mask": True},
    "implementation 1": {"implementation": 1, "use_bias": False},
    "activations": {"activation": None, "recurrent_activation": "hard_sigmoid"},
}


@pytest.mark.parametrize("name", OWN_LSTMS)
def test_own_layer(name, tmp_path):
    """Our own layer's files give its own predictions."""
    own = pytest.importorskip("lstm_core.layers.lstm").LSTM
    check_parity(sequential(layers.Masking(), own(4, **OWN_LSTMS[name])), tmp_path)


def test_own_layer_inside_bidirectional_and_beside_keras(tmp_path):
    """Our layer and Keras's share a name in the file, and our layer works in both directions."""
    own = pytest.importorskip("lstm_core.layers.lstm").LSTM
    chain = [
        layers.Masking(),
        layers.LSTM(3, return_sequences=True),
        own(4, return_sequences=True),
        layers.Bidirectional(own(3, return_sequences=True)),
        layers.LSTM(3),
    ]
    check_parity(sequential(*chain), tmp_path)


def test_own_layer_with_time_before_batch_is_refused(tmp_path):
    """A network has the batch before the time."""
    own = pytest.importorskip("lstm_core.layers.lstm").LSTM
    model = keras.Sequential([keras.Input((4, FEATURES)), own(4, time_major=True)])
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(FormatError, match="time_major=True puts time before the batch"):
        read_keras(path)

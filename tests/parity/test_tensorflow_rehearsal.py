"""The tests of the TensorFlow runtime that need a GPU, rehearsed around a stand-in for cuDNN."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("tensorflow")

import keras

from lstm_core.formats.keras import read_keras
from lstm_core.runtime import tensorflow_steps
from service.runtimes import RuntimeChoice, open_runtime
from tests.gpu import test_tensorflow_runtime_gpu as on_gpu
from tests.parity.cudnn_cases import put_in_place

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """A machine with cuDNN, as far as anybody is told."""
    return put_in_place(monkeypatch)


def test_sequences(tmp_path, stand_in):
    """Rows that end early go to cuDNN, masks with holes to TensorFlow, in one graph."""
    on_gpu.test_sequences_equal_the_cpu_runtime(tmp_path)
    # Two layers, tried once, of two chunks; the third one's mask has holes.
    assert 2 * (1 + 2) == stand_in.runs.numpy()
    assert {False} == stand_in.is_training


def test_sequences_of_grus(stand_in):
    """The same, of the other layer that cuDNN has."""
    on_gpu.test_sequences_of_grus_equal_keras()
    # Two layers, tried once, of two pieces, then of one: in the other some rows have nothing live.
    assert 2 * (1 + 2 + 1) == stand_in.runs.numpy()
    assert {False} == stand_in.is_training


def test_steps(tmp_path, stand_in):
    """The arena is where it should be, and no step of the plain graph goes to cuDNN."""
    on_gpu.test_steps_equal_the_cpu_runtime(on_gpu.STEPS["plain"], tmp_path)
    # Two layers, tried once.
    assert 2 == stand_in.runs.numpy()


def test_masked_steps(stand_in):
    """Both layers on cuDNN, rows that are masked too."""
    on_gpu.test_masked_steps_on_cudnn_equal_keras()
    # Two layers, tried once; five ticks, and one that the graph was tried with.
    assert 2 * 7 == stand_in.runs.numpy()
    assert {False} == stand_in.is_training


def test_what_takes_single_steps_is_told_with_the_choice_of_the_runtime(tmp_path, monkeypatch):
    """The three graphs are measured at the start, and the reason names each with its time."""
    monkeypatch.setattr(tensorflow_steps, "SIZES", (1,))
    lstm = keras.layers.LSTM(2)
    keras.Sequential([keras.Input((None, 3)), lstm]).save(tmp_path / "m.keras")

    _, reason = open_runtime(tmp_path / "m.keras", 4, RuntimeChoice(kind="tensorflow"), read_keras)

    time = r"\d+ us"
    graphs = rf"\(plain {time}, cudnn {time}, xla {time}\), more on (plain|cudnn)"
    told = rf"it was asked for; single steps, by their rows: up to 1 on (plain|cudnn|xla) {graphs}"
    assert re.fullmatch(told, reason)

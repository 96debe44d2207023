"""The tests of the TensorFlow runtime that need a GPU, rehearsed around a stand-in for cuDNN."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow")

from tests.gpu import test_tensorflow_runtime_gpu as on_gpu
from tests.parity.cudnn_cases import put_in_place


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """A machine with cuDNN, as far as anybody is told."""
    return put_in_place(monkeypatch)


def test_sequences(tmp_path, stand_in):
    """Rows that end early go to cuDNN, masks with holes to TensorFlow, in one graph."""
    on_gpu.test_sequences_equal_the_cpu_runtime(tmp_path)
    # Two layers of two chunks; the third one's mask has holes.
    assert 2 * 2 == stand_in.runs.numpy()


def test_steps(tmp_path):
    """The arena is where it should be."""
    on_gpu.test_steps_equal_the_cpu_runtime((), tmp_path)

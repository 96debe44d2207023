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


@pytest.mark.parametrize("name", ["right_padded", "holes"])
def test_sequences(name, tmp_path, stand_in):
    """Rows that end early go to cuDNN, masks with holes to TensorFlow, in one graph."""
    on_gpu.test_sequences_equal_the_cpu_runtime(name, tmp_path)
    # Two layers, in a chunk and in `predict`.
    assert {"right_padded": 4, "holes": 0}[name] == stand_in.runs.numpy()


def test_steps(tmp_path):
    """The arena is where it should be."""
    on_gpu.test_steps_equal_the_cpu_runtime((), tmp_path)

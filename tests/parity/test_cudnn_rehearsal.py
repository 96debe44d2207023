"""The tests that need a GPU, rehearsed around a stand-in for cuDNN's operation.

Nobody runs them daily. What they expect of everything but the operation is held here, so that on
the day that a GPU is at hand a failure is cuDNN's.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.gpu import test_cudnn_gpu as on_gpu
from tests.parity.cudnn_cases import put_in_place


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    put_in_place(monkeypatch)


@pytest.mark.parametrize(
    ("name", "has_graph"),
    [("none", False), ("right_padded", False), ("right_padded", True), ("holes", False)],
)
def test_the_kernel(name, has_graph):
    """The kernels, their numbers and their counts are as the test on a GPU expects them."""
    options = {"return_sequences": True, "return_state": True, "go_backwards": True}
    on_gpu.test_cudnn_equals_the_generic_kernel(options, name, on_gpu.MASKS[name], has_graph)


def test_the_graph_that_takes_every_mask():
    """Its calls are counted as expected."""
    on_gpu.test_one_graph_takes_every_mask()


def test_what_is_asked_for():
    """XLA, masks and places that cuDNN does not take are refused as expected."""
    on_gpu.test_xla_stays_off_cudnn()
    on_gpu.test_asked_for_cudnn()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_the_precisions(policy):
    """The tolerances are wide enough for the dtypes."""
    on_gpu.test_precisions(policy)


def test_the_layers():
    """`CuDNNLSTM` and `CudnnLSTM` give on both paths what is expected."""
    on_gpu.test_cudnn_lstm(go_backwards=True)
    on_gpu.test_cudnn_stack(3, np.arange(1, on_gpu.BATCH + 1), "bidirectional")

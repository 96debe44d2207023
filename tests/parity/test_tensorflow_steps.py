"""Single steps on several graphs: the same numbers, and the choice between them."""

from __future__ import annotations

from time import sleep

import numpy as np
import pytest

from lstm_core.errors import DeviceMemoryError
from lstm_core.runtime.base import ZERO_SLOT

keras = pytest.importorskip("keras")
layers = keras.layers

import tensorflow as tf  # noqa: E402

from lstm_core.runtime.tensorflow import TensorFlowRuntime  # noqa: E402
from lstm_core.runtime.tensorflow_steps import CUDNN, PLAIN, XLA, StepGraphs  # noqa: E402
from tests.parity.tensorflow_cases import (  # noqa: E402
    FEATURES,
    TOLERANCE,
    draw,
    in_pieces,
    sequential,
    whole,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


def test_steps_compiled_by_xla_are_the_same():
    """Ticks are filled up to the sizes that are compiled; larger ones run as they are."""
    model = sequential(layers.LSTM(4, return_sequences=True), layers.GRU(5, return_sequences=True))
    runtime = TensorFlowRuntime(model, 12, step_graphs={2: XLA})
    assert runtime.steps is not None
    assert "single steps, by their rows: up to 2 on xla, more on plain" == runtime.steps.explain()
    for batch in (1, 3):
        inputs = draw(batch, 2, FEATURES, seed=batch)
        steps = in_pieces(runtime, inputs, [1, 1])
        np.testing.assert_allclose(steps, whole(model, inputs), **TOLERANCE)
        np.testing.assert_array_equal(runtime.read(ZERO_SLOT)[0], np.zeros(13))

    with pytest.raises(ValueError, match="steps run on plain, xla; there is no cudnn here"):
        TensorFlowRuntime(model, 2, step_graphs={1: CUDNN})


def test_steps_that_find_no_memory_when_they_are_chosen_say_so():
    """As an arena does that does not fit, which whoever opens a model expects."""

    def eat(values):
        if len(values) == 8:
            raise MemoryError  # TensorFlow makes of it what it says of a device without memory
        return values

    def eaten(x):
        return tf.ensure_shape(tf.numpy_function(eat, [x], x.dtype), x.shape)

    model = sequential(layers.Lambda(eaten), layers.GRU(2))
    with pytest.raises(DeviceMemoryError, match="no memory for the steps that choose a graph"):
        TensorFlowRuntime(model, 2, step_graphs={8: PLAIN})


class Doubling:
    """Stands for a graph: doubles its rows, slow or impossible for some numbers of them."""

    def __init__(self, slow=(), impossible=()):
        """Take long for some numbers of rows; have no operation for others."""
        self.slow = slow
        self.impossible = impossible
        self.seen = []

    def __call__(self, rows):
        """Return twice the rows."""
        num_rows = len(rows)
        self.seen.append(num_rows)
        if num_rows in self.impossible:
            raise tf.errors.UnimplementedError(None, None, "no such operation\nat length")
        if num_rows in self.slow:
            sleep(0.002)
        return 2 * rows


def test_each_number_of_rows_gets_the_graph_that_was_the_fastest():
    """What cannot run is no candidate, and the reason says so; XLA's ticks are filled up."""
    graphs = {
        PLAIN: Doubling(slow=(1, 8, 512)),
        CUDNN: Doubling(slow=(1, 64)),
        XLA: Doubling(slow=(8, 64, 512), impossible=(512,)),
    }

    steps = StepGraphs(graphs, np.zeros(2, np.float32), None)

    assert [(1, XLA), (8, CUDNN), (64, PLAIN), (512, CUDNN)] == [
        (choice.num_rows, choice.graph) for choice in steps.choices
    ]
    assert CUDNN == steps.beyond
    told = steps.explain()
    assert "up to 1 on xla (plain " in told
    assert "up to 512 on cudnn (plain " in told
    assert "xla cannot: no such operation)" in told
    for num_rows, graph, seen in ((1, XLA, 1), (3, CUDNN, 3), (9, PLAIN, 9), (600, CUDNN, 600)):
        packed = draw(num_rows, 2)
        run, filled = steps.prepare(packed)
        np.testing.assert_array_equal(2 * packed, run(filled)[:num_rows])
        assert seen == graphs[graph].seen[-1]

    run, filled = StepGraphs(graphs, np.zeros(2, np.float32), {8: XLA}).prepare(draw(3, 2))
    np.testing.assert_array_equal(np.concatenate([2 * draw(3, 2), np.zeros((5, 2))]), run(filled))
    with pytest.raises(tf.errors.UnimplementedError):
        StepGraphs(graphs, np.zeros(2, np.float32), {512: XLA})

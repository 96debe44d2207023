"""The TensorFlow runtime on a GPU: cuDNN for sequences, a CPU's numbers, memory that runs out.

Run by `make test-gpu`. Nobody has run it on a GPU yet; `tests/parity/test_tensorflow_rehearsal.py`
runs some of it around a stand-in for cuDNN's operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from lstm_core.errors import DeviceMemoryError
from lstm_core.formats.keras import read_keras
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.runtime.tensorflow import TensorFlowRuntime

pytestmark = pytest.mark.gpu

FEATURES, UNITS, BATCH, TIME = 16, 32, 8, 20
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}
MASKS: dict[str, Any] = {
    "none": None,
    "right_padded": np.arange(TIME) < np.arange(1, BATCH + 1)[:, None],
    "holes": np.random.default_rng(3).random((BATCH, TIME)) < 0.7,
}


@pytest.fixture(autouse=True)
def full_precision():
    """TensorFlow sees the GPU, and multiplies in full float32 for these tests."""
    if not tf.config.get_visible_devices("GPU"):
        pytest.skip("TensorFlow sees no GPU")
    was_enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(enabled=was_enabled)


def draw(*shape: int, seed: int = 1, scale: float = 1.0) -> Any:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def runtimes(path: Any, **options: Any) -> tuple[TensorFlowRuntime, CpuRuntime]:
    """Return a file of two LSTMs and a head on both runtimes."""
    lstms = [keras.layers.LSTM(UNITS, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.Input((None, FEATURES)), *lstms, keras.layers.Dense(4)])
    for index, weight in enumerate(model.trainable_weights):
        weight.assign(draw(*weight.shape, seed=index, scale=0.3))
    model.save(path)
    network = read_keras(path)
    capacity = 4 * BATCH
    return TensorFlowRuntime(model, capacity, like=network, **options), CpuRuntime(
        network, capacity
    )


def test_sequences_equal_the_cpu_runtime(tmp_path):
    """Ragged rows, masked or not, from states that are not zero; cuDNN where the masks let it."""
    ours, cpu = runtimes(tmp_path / "m.keras", step_graphs={})
    assert ["cudnn", "cudnn"] == [layer.dispatch.kernel for layer in ours.layers if layer.dispatch]
    slots = list(range(1, 1 + BATCH)), list(range(1 + BATCH, 1 + 2 * BATCH))
    for runtime in (ours, cpu):
        for slot in slots[0]:
            runtime.write(slot, draw(4 * UNITS, seed=slot), [True, slot % 2 == 0])
    inputs, lengths = draw(BATCH, TIME, FEATURES), list(range(TIME - BATCH, TIME))
    for mask in MASKS.values():
        first, second = (r.advance(*slots, inputs, lengths, mask) for r in (ours, cpu))
        np.testing.assert_allclose(first.outputs, second.outputs, **CLOSE)
        np.testing.assert_allclose(first.rows, second.rows, **CLOSE)
        np.testing.assert_array_equal(first.has_output, second.has_output)


def test_sequences_of_grus_equal_keras():
    """On cuDNN where the masks let it, from states that are not zero; Keras runs on the CPU."""
    zeroing = keras.layers.GRU(UNITS, return_sequences=True, zero_output_for_mask=True)
    grus = [keras.layers.GRU(UNITS, return_sequences=True), zeroing]
    model = keras.Sequential([keras.Input((None, FEATURES)), *grus])
    for index, weight in enumerate(model.trainable_weights):
        weight.assign(draw(*weight.shape, seed=index, scale=0.3))
    ours = TensorFlowRuntime(model, 3 * BATCH, step_graphs={})
    assert ["cudnn", "cudnn"] == [layer.dispatch.kernel for layer in ours.layers if layer.dispatch]
    first, second, third = (list(range(1 + at, 1 + at + BATCH)) for at in (0, BATCH, 2 * BATCH))
    states = draw(BATCH, 2 * UNITS, scale=0.5)
    for slot, row in zip(first, states, strict=True):
        ours.write(slot, row, [False, False])
    inputs = draw(BATCH, TIME, FEATURES)
    for mask in MASKS.values():
        pieces = []
        for source, target, span in ((first, second, np.s_[:, :7]), (second, third, np.s_[:, 7:])):
            live = None if mask is None else mask[span]
            pieces.append(ours.advance(source, target, inputs[span], None, live))
        with tf.device("CPU:0"):
            between = grus[0](inputs, initial_state=states[:, :UNITS], mask=mask)
            expected = grus[1](between, initial_state=states[:, UNITS:], mask=mask)
        outputs = np.concatenate([piece.outputs for piece in pieces], axis=1)
        np.testing.assert_allclose(outputs, expected, **CLOSE)


STEPS: dict[str, Any] = {"plain": {}, "xla": {8: "xla"}, "cudnn": {8: "cudnn"}, "measured": None}


@pytest.mark.parametrize("step_graphs", STEPS.values(), ids=STEPS.keys())
def test_steps_equal_the_cpu_runtime(step_graphs, tmp_path):
    """Whichever graph was chosen for single steps; the arena is on the GPU."""
    ours, cpu = runtimes(tmp_path / "m.keras", step_graphs=step_graphs)
    assert "GPU:0" == ours.device
    inputs = draw(BATCH, 5, FEATURES)
    slots = [list(range(1, 1 + BATCH)), list(range(1 + BATCH, 1 + 2 * BATCH))]
    for t in range(5):
        source = slots[t % 2] if t else [ZERO_SLOT] * BATCH
        here, there = (
            runtime.advance(source, slots[1 - t % 2], inputs[:, t : t + 1], None)
            for runtime in (ours, cpu)
        )
        np.testing.assert_allclose(here.outputs, there.outputs, **CLOSE)
        np.testing.assert_allclose(here.rows, there.rows, **CLOSE)


@pytest.mark.parametrize("step_graphs", STEPS.values(), ids=STEPS.keys())
def test_what_is_staged_is_on_the_gpu(step_graphs, tmp_path):
    """While another tick runs, the inputs of the next one go there, and not when it begins."""
    ours, cpu = runtimes(tmp_path / "m.keras", step_graphs=step_graphs)
    slots = list(range(1, 1 + BATCH)), list(range(1 + BATCH, 1 + 2 * BATCH))
    rows, flags = draw(BATCH, 4 * UNITS), np.ones((BATCH, 2), np.bool_)
    ours.write_many(slots[0], rows, flags)
    for slot, row, flag in zip(slots[0], rows, flags, strict=True):
        cpu.write(slot, row, flag)
    for time in (1, TIME):
        inputs = draw(BATCH, time, FEATURES)
        staged = ours.stage(*slots, inputs, None)
        assert staged.packed.device.endswith("GPU:0")
        there = cpu.advance(*slots, inputs, None)
        np.testing.assert_allclose(ours.run(staged).rows, there.rows, **CLOSE)


def test_masked_steps_on_cudnn_equal_keras():
    """LSTMs and GRUs, step by step; what is masked runs there too, and is undone."""
    x = keras.Input((None, FEATURES))
    masked = keras.layers.Masking()(x)
    # Side by side: what a layer gives for a masked step is not seen behind another one.
    lstm = keras.layers.LSTM(UNITS, return_sequences=True, zero_output_for_mask=True)(masked)
    gru = keras.layers.GRU(UNITS, return_sequences=True)(masked)
    model = keras.Model(x, [lstm, gru])
    inputs = draw(BATCH, 5, FEATURES)
    inputs[~MASKS["holes"][:, :5]] = 0
    ours = TensorFlowRuntime(model, 2 * BATCH, step_graphs={BATCH: "cudnn"})
    slots = [list(range(1, 1 + BATCH)), list(range(1 + BATCH, 1 + 2 * BATCH))]
    source, outputs = [ZERO_SLOT] * BATCH, []
    for t in range(5):
        target = slots[t % 2]
        outputs.append(ours.advance(source, target, inputs[:, t : t + 1], None).outputs)
        source = target
    with tf.device("CPU:0"):
        expected = np.concatenate(model(inputs, training=False), axis=2)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), expected, **CLOSE)


def test_memory_that_runs_out_is_told():
    """An arena that no GPU holds; and the next one fits."""
    model = keras.Sequential([keras.Input((None, FEATURES)), keras.layers.LSTM(2048)])
    with pytest.raises(DeviceMemoryError, match="an arena of 16000000 rows"):
        TensorFlowRuntime(model, 16_000_000)  # 262 GB
    runtime = TensorFlowRuntime(model, 4, step_graphs={})
    assert np.isfinite(runtime.advance([0], [1], draw(1, 1, FEATURES), None).rows).all()


def test_a_gpu_takes_memory_as_it_is_needed():
    """Other processes find room beside this one."""
    from lstm_core.runtime.tensorflow_device import use_one_device

    use_one_device(allow_tf32=False)
    gpus = tf.config.get_visible_devices("GPU")
    assert [True] == [tf.config.experimental.get_memory_growth(gpu) for gpu in gpus]

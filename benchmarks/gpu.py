"""Single steps of many sessions on a GPU, beside PyTorch's cuDNN LSTM: `make bench-gpu`.

Both keep every session's state on the device and do the same each tick: inputs and slots go there,
the states are gathered, an LSTM takes one step, the new states are scattered, outputs and states
come back. Each figure is the median of ticks in turns, so that a slow moment of the machine meets
both. TF32 is off.

What limits a tick: its arithmetic (2 FLOPs for each weight and row) at the rate of a large product
in float32, or its memory (the weights once, each state read and written) at the rate of a large
copy, whichever takes longer; both rates are measured in the same run. The share of that limit is
of the whole tick, its way to the device and back included.

Without a GPU it says so, and runs a few small ticks on the CPU to show that it would run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from lstm_core.runtime.tensorflow import TensorFlowRuntime
from lstm_core.runtime.tensorflow_device import use_one_device

FEATURES = 64
UNITS = (128, 512, 1024)
SESSIONS = (1, 64, 1024, 16_384)
_REHEARSAL: tuple[tuple[int, ...], tuple[int, ...]] = ((128,), (1, 64))

Tick = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the device was measured to do.

    Attributes:
        flops: Floating-point operations a second of a large float32 product.
        bytes_s: Bytes a second that a large copy reads and writes.
    """

    flops: float
    bytes_s: float

    def seconds(self, units: int, sessions: int) -> float:
        """Return the least time of a tick by arithmetic and memory."""
        weights = 4 * units * (FEATURES + units + 1)
        arithmetic_s = 2 * weights * sessions / self.flops
        memory_s = 4 * (weights + 2 * 2 * units * sessions) / self.bytes_s
        return max(arithmetic_s, memory_s)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line and contestant")
    arguments = parser.parse_args()
    device = use_one_device(allow_tf32=False)
    has_gpu = bool(tf.config.get_visible_devices("GPU"))
    if not has_gpu:
        print("There is no GPU: a rehearsal on the CPU, whose figures say nothing of one.")
    all_units, all_sessions = (UNITS, SESSIONS) if has_gpu else _REHEARSAL
    limits = _measure_limits(has_gpu)
    missing = _no_rival(has_gpu)
    print(
        f"{device}: {limits.flops / 1e12:.2f} TFLOP/s in float32, {limits.bytes_s / 1e9:.0f} GB/s;"
        f" TensorFlow {tf.__version__}"
    )
    print("units sessions   ours us  steps/s  of limit  graph  torch us  steps/s  ours/torch")
    for units in all_units:
        for sessions in all_sessions:
            _measure_line(units, sessions, limits, arguments.seconds, missing)


def _no_rival(has_gpu: bool) -> str | None:
    """Return why PyTorch cannot be measured beside us, or None."""
    if find_spec("torch") is None:
        return "PyTorch is not installed"
    if has_gpu and not import_module("torch").cuda.is_available():
        return "PyTorch cannot use the GPU: it is not built for it"
    return None


def _measure_line(
    units: int, sessions: int, limits: Limits, seconds: float, missing: str | None
) -> None:
    layer = keras.layers.LSTM(units, return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (sessions, 1, FEATURES)).astype(np.float32)
    ours, runtime = _our_tick(model, inputs)
    ticks = [ours]
    if missing is None:
        theirs = _torch_tick(layer, inputs)
        np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-5)
        ticks.append(theirs)
    took = _in_turns(ticks, seconds)
    assert runtime.steps is not None
    graph, _ = runtime.steps.graph_of(sessions)
    line = (
        f"{units:5} {sessions:8} {took[0] * 1e6:9.0f} {sessions / took[0]:8.0f}"
        f" {limits.seconds(units, sessions) / took[0]:9.0%}  {graph:5}"
    )
    if len(took) > 1:
        line += f" {took[1] * 1e6:9.0f} {sessions / took[1]:8.0f} {took[1] / took[0]:11.2f}"
    else:
        line += f" ({missing})"
    if sessions == 1 and runtime.steps.choices:
        line += f"\n      {runtime.steps.explain()}"
    print(line, flush=True)


def _our_tick(model: keras.Model, inputs: Any) -> tuple[Tick, TensorFlowRuntime]:
    sessions = len(inputs)
    runtime = TensorFlowRuntime(model, 2 * sessions)
    places = [list(range(1, sessions + 1)), list(range(sessions + 1, 2 * sessions + 1))]

    def tick() -> Any:
        advanced = runtime.advance(places[0], places[1], inputs, None)
        places.reverse()
        return advanced.outputs[:, 0]

    return tick, runtime


def _torch_tick(layer: keras.layers.LSTM, inputs: Any) -> Tick:
    """Return the same tick on `torch.nn.LSTM`, which runs on cuDNN where there is a GPU."""
    torch: Any = import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sessions, units = len(inputs), layer.units
    lstm = torch.nn.LSTM(FEATURES, units)
    kernel, recurrent_kernel, bias = (torch.tensor(array.T) for array in layer.get_weights())
    weights = {"weight_ih_l0": kernel, "weight_hh_l0": recurrent_kernel, "bias_ih_l0": bias}
    lstm.load_state_dict({**weights, "bias_hh_l0": torch.zeros_like(bias)})
    lstm.to(device).eval()
    rows = torch.zeros((2 * sessions + 1, 2 * units), device=device)
    places = [np.arange(1, sessions + 1), np.arange(sessions + 1, 2 * sessions + 1)]

    def tick() -> Any:
        packed = np.concatenate([np.stack(places, 1).astype(np.float32), inputs[:, 0]], axis=1)
        with torch.inference_mode():
            there = torch.from_numpy(packed).to(device)
            source, target = there[:, 0].long(), there[:, 1].long()
            h, c = rows.index_select(0, source).split(units, dim=1)
            states = (h[None].contiguous(), c[None].contiguous())
            outputs, (h, c) = lstm(there[None, :, 2:].contiguous(), states)
            after = torch.cat([h[0], c[0]], dim=1)
            rows.index_copy_(0, target, after)
            is_finite = torch.isfinite(after).all(dim=1, keepdim=True).float()
            back = torch.cat([is_finite, after, outputs[0]], dim=1).cpu().numpy()
        places.reverse()
        return back[:, 1 + 2 * units :]

    return tick


def _in_turns(ticks: list[Tick], seconds: float) -> list[float]:
    """Return the median seconds of each."""
    times: list[list[float]] = [[] for _ in ticks]
    for tick in ticks:
        for _ in range(5):
            tick()
    end = perf_counter() + seconds * len(ticks)
    while perf_counter() < end:
        for tick, own in zip(ticks, times, strict=True):
            began = perf_counter()
            tick()
            own.append(perf_counter() - began)
    return [median(own) for own in times]


def _measure_limits(has_gpu: bool) -> Limits:
    size, num_copied = (8192, 1 << 28) if has_gpu else (1024, 1 << 24)
    factor = tf.random.normal((size, size))
    source = tf.zeros((num_copied,))

    # Eagerly, since a graph would compute no more than the one number that is waited for.
    def multiply() -> Any:
        return tf.matmul(factor, factor)[0, 0].numpy()

    def copy() -> Any:
        return tf.add(source, 1.0)[0].numpy()

    product_s, copy_s = _in_turns([multiply, copy], 1.0)
    return Limits(flops=2 * size**3 / product_s, bytes_s=2 * 4 * num_copied / copy_s)


if __name__ == "__main__":
    main()

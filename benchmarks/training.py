"""Steps a second of `lstm_core.LSTM` beside `keras.layers.LSTM`: `make bench-training`.

Training is `Model.train_on_batch`, inference `Model.predict_on_batch`, both of a functional model
with an unknown batch size, compiled as Keras does by itself. All contestants are warmed up; each
figure is the median of several repeats, in turns so that a slow moment of the machine meets all.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

import lstm_core
from lstm_core.kernels import block
from lstm_core.kernels import tensorflow as generic


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What one call works on."""

    batch: int
    time: int
    features: int
    units: int


SIZES = (
    Size(batch=32, time=100, features=32, units=64),
    Size(batch=32, time=50, features=64, units=256),
    Size(batch=8, time=200, features=128, units=512),
)


class OneKernel(lstm_core.LSTM):
    """An `LSTM` whose calls run on the kernel that its subclass names, whatever it would choose."""

    kernel_module: Any

    def _run_kernel(self, *arguments: Any, **options: Any) -> Any:
        return self.kernel_module.sequence(*arguments, **options)


class Block(OneKernel):
    """On the fused operations."""

    kernel_module = block


class Generic(OneKernel):
    """On a loop of plain operations."""

    kernel_module = generic


CONTESTANTS: dict[str, tuple[type[Any], bool | str]] = {
    "keras": (keras.layers.LSTM, "auto"),
    "lstm_core": (lstm_core.LSTM, "auto"),
    "block": (Block, "auto"),
    "generic": (Generic, "auto"),
    "generic, XLA": (Generic, True),
}
"""Layer and `jit_compile` by name; the ratios are to the first."""


def steps(
    size: Size, layer: type[Any], jit_compile: bool | str, *, has_mask: bool
) -> dict[str, Callable[[], Any]]:
    """Return one step of training and one of inference, of a model with the layer."""
    random = np.random.default_rng(0)
    x = random.normal(size=(size.batch, size.time, size.features)).astype(np.float32)
    y = random.integers(0, 10, size.batch)
    if has_mask:
        lengths = random.integers(size.time // 2, size.time + 1, size.batch)
        x[np.arange(size.time) >= lengths[:, np.newaxis]] = 0
    inputs = keras.Input((size.time, size.features))
    masked = keras.layers.Masking()(inputs) if has_mask else inputs
    outputs = keras.layers.Dense(10)(layer(size.units)(masked))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=jit_compile)
    return {
        "training": lambda: model.train_on_batch(x, y),
        "inference": lambda: model.predict_on_batch(x),
    }


def measure(
    contestants: dict[str, Callable[[], Any]], repeats: int, seconds: float
) -> dict[str, float]:
    """Return the median milliseconds of a step of each."""
    calls: dict[str, int] = {}
    for name, step in contestants.items():
        for _ in range(3):
            step()
        start = time.perf_counter()
        step()
        calls[name] = max(1, round(seconds / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, step in contestants.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                step()
            found[name].append((time.perf_counter() - start) / calls[name] * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each repeat")
    parser.add_argument("--mask", action="store_true", help="rows of half to full length")
    parser.add_argument("--all", action="store_true", help="each kernel, and XLA, too")
    options = parser.parse_args()

    names = list(CONTESTANTS) if options.all else list(CONTESTANTS)[:2]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores,", end=" ")
    print(f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras", end=" ")
    print(f"{keras.__version__}; GPUs {len(tf.config.list_physical_devices('GPU'))}")
    print(f"median of {options.repeats} repeats of {options.seconds} s; masked: {options.mask}\n")
    print("| batch, time, features, units | step | layer | ms | steps/s | times Keras's speed |")
    print("|---|---|---|---|---|---|")
    for size in SIZES:
        made = {name: steps(size, *CONTESTANTS[name], has_mask=options.mask) for name in names}
        for kind in ("training", "inference"):
            step_of = {name: of_kind[kind] for name, of_kind in made.items()}
            found = measure(step_of, options.repeats, options.seconds)
            for name, ms in found.items():
                print(
                    f"| {size.batch}, {size.time}, {size.features}, {size.units} | {kind} | {name}"
                    f" | {ms:.2f} | {1000 / ms:,.1f} | {found['keras'] / ms:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

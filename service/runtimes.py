"""Which runtime computes a model, and why: the choice that `--runtime` leaves open.

Imports TensorFlow where a model needs it, or where there is a GPU that could pay.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Literal, NamedTuple
from zipfile import is_zipfile

import numpy as np

from lstm_core.errors import DeviceMemoryError, FormatError, SpecError
from lstm_core.network import Network
from lstm_core.runtime.base import ZERO_SLOT, Runtime
from lstm_core.runtime.cpu import CpuRuntime

if TYPE_CHECKING:
    from lstm_core.runtime.tensorflow import TensorFlowRuntime

_INSTALL = "pip install 'lstm-service[tensorflow]'"
_MIN_GPU_WEIGHTS = 500_000
"""Below so many recurrent weights a CPU core should take a step sooner than a GPU is called: an
estimate, which spares the start of TensorFlow for small models. Above, both are measured."""
_TRIAL_ROWS = 64
_TRIALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChoice:
    """What an operator has said about runtimes.

    Attributes:
        kind: `cpu`, `tensorflow`, or `auto`: the CPU's where it can take the model, and no GPU is
            faster.
        allow_tf32: Whether a GPU may round the factors of products; see `use_one_device`.
        kernel_threads: Most threads of one call of the native kernel.
        precision: Of the LSTMs' products on the CPU; see `native.Precision`. Like the device and
            TF32 it is no part of a fingerprint: a state is float32, and another precision goes on
            with it.
        keras_modules: Modules that register Keras layers, joined by commas; imported before
            TensorFlow reads a model.
    """

    kind: Literal["auto", "cpu", "tensorflow"] = "auto"
    allow_tf32: bool = False
    keras_modules: str = ""
    kernel_threads: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"


class Chosen(NamedTuple):
    """A runtime, and why it is this one."""

    runtime: Runtime
    reason: str


def open_runtime(
    path: Path, capacity: int, choice: RuntimeChoice, read: Callable[[Path], Network]
) -> Chosen:
    """Read a model and return what computes it.

    Args:
        path: Its file.
        capacity: Slots of the arena; 0 where the runtime is only looked at, which then has as many
            as it takes to compare it with another one.
        choice: What the operator has said.
        read: Reads a file for the CPU's runtime, or raises FormatError.

    Raises:
        FormatError: No runtime that may be chosen takes the file.
    """
    capacity = capacity or _TRIAL_ROWS
    try:
        network = read(path)
    except FormatError as error:
        return _without_cpu(path, capacity, choice, error)
    if choice.kind == "tensorflow":
        runtime = _tensorflow_runtime(path, capacity, choice, network)
        return _with_steps(runtime, "it was asked for")
    cpu = _cpu_runtime(path, capacity, choice, network)
    if choice.kind == "cpu":
        return Chosen(cpu, "it was asked for")
    if not _has_gpu():
        return Chosen(cpu, "it takes every layer, and there is no GPU")
    return _with_gpu(path, capacity, choice, cpu)


def _cpu_runtime(path: Path, capacity: int, choice: RuntimeChoice, network: Network) -> CpuRuntime:
    """Return the CPU's runtime; FormatError where it has not got the precision."""
    try:
        return CpuRuntime(
            network, capacity, num_threads=choice.kernel_threads, precision=choice.precision
        )
    except SpecError as error:
        raise FormatError(str(path), [str(error)], network.written_by) from error


def _without_cpu(path: Path, capacity: int, choice: RuntimeChoice, error: FormatError) -> Chosen:
    """Return the runtime of a file that the CPU's cannot take."""
    if choice.kind == "cpu":
        raise error
    if not _is_for_keras(path):
        if choice.kind == "auto":
            raise error
        problem = "the TensorFlow runtime reads .keras files only"
        raise FormatError(error.path, [problem, *error.problems], error.written_by) from error
    if not _has_tensorflow():
        problem = f"the TensorFlow runtime may take it, but it is not installed: {_INSTALL}"
        raise FormatError(error.path, [*error.problems, problem], error.written_by) from error
    try:
        runtime = _tensorflow_runtime(path, capacity, choice, None)
    except FormatError as other:
        problems = [*(f"for TensorFlow: {each}" for each in other.problems), *error.problems]
        raise FormatError(error.path, problems, error.written_by) from other
    if choice.kind == "tensorflow":
        return _with_steps(runtime, "it was asked for")
    return _with_steps(runtime, f"the CPU runtime cannot take it: {_shortened(error)}")


def _with_gpu(path: Path, capacity: int, choice: RuntimeChoice, cpu: CpuRuntime) -> Chosen:
    """Return the faster of two runtimes, where there is a GPU."""
    network = cpu.network
    num_weights = sum(
        4 * layer.spec.units * (layer.spec.input_size + layer.spec.output_size)
        for layer in network.recurrent
    )
    if not network.recurrent:
        return Chosen(cpu, "it takes every layer; the model has no sessions that a GPU could hold")
    if num_weights < _MIN_GPU_WEIGHTS:
        reason = f"it takes every layer, and {num_weights} recurrent weights are too few for a GPU"
        return Chosen(cpu, reason)
    if not _has_tensorflow():
        return Chosen(cpu, f"it takes every layer; to use the GPU: {_INSTALL}")
    try:
        gpu = _tensorflow_runtime(path, capacity, choice, network)
    except FormatError as error:
        return Chosen(cpu, f"the TensorFlow runtime cannot take it: {_shortened(error)}")
    if gpu.device == "CPU:0":
        return Chosen(cpu, "it takes every layer, and TensorFlow cannot use the GPU")
    num_rows = min(_TRIAL_ROWS, capacity)
    cpu_us, gpu_us = _tick_us(cpu, num_rows), _tick_us(gpu, num_rows)
    measured = f"a tick of {num_rows} sessions takes {gpu_us:.0f} us on the GPU, {cpu_us:.0f} us"
    reason = f"{measured} on the CPU"
    return _with_steps(gpu, reason) if gpu_us < cpu_us else Chosen(cpu, reason)


def _with_steps(runtime: TensorFlowRuntime, reason: str) -> Chosen:
    """Return a choice that tells what takes single steps, where there was something to choose."""
    steps = "" if runtime.steps is None else runtime.steps.explain()
    return Chosen(runtime, f"{reason}; {steps}" if steps else reason)


def _tensorflow_runtime(
    path: Path, capacity: int, choice: RuntimeChoice, network: Network | None
) -> TensorFlowRuntime:
    """Read a model for TensorFlow.

    Raises:
        FormatError: It is not installed, or does not take the file.
    """
    if not _has_tensorflow():
        raise FormatError(str(path), [f"the TensorFlow runtime is not installed: {_INSTALL}"])
    if choice.precision != "float32":
        problem = f"the TensorFlow runtime has float32 only, not {choice.precision}"
        raise FormatError(str(path), [problem])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its own words on every CPU and driver
    from lstm_core.formats.keras_model import read_keras_model
    from lstm_core.runtime.tensorflow import TensorFlowRuntime
    from lstm_core.runtime.tensorflow_device import use_one_device

    use_one_device(allow_tf32=choice.allow_tf32)
    try:
        for name in filter(None, choice.keras_modules.split(",")):
            import_module(name)
    except ImportError as error:
        problem = f"a module of --keras-modules cannot be imported: {error}"
        raise FormatError(str(path), [problem]) from error
    try:
        return TensorFlowRuntime(read_keras_model(path), capacity, like=network)
    except SpecError as error:
        raise FormatError(str(path), [str(error)]) from error
    except DeviceMemoryError as error:
        problem = f"{error}; lower --arena-rows, or serve it with --runtime cpu"
        raise FormatError(str(path), [problem]) from error


def _tick_us(runtime: Runtime, num_rows: int) -> float:
    """Return how long single steps of so many sessions take, the median of some ticks."""
    slots = [runtime.allocate() for _ in range(num_rows)]
    inputs = np.zeros((len(slots), 1, runtime.network.input_size), np.float32)
    times = []
    for _ in range(_TRIALS):
        began = perf_counter()
        runtime.advance([ZERO_SLOT] * len(slots), slots, inputs, None)
        times.append(perf_counter() - began)
    for slot in reversed(slots):
        runtime.free(slot)
    return median(times) * 1e6


def _shortened(error: FormatError) -> str:
    first, *others = error.problems
    return f"{first} (and {len(others)} more)" if others else first


def _is_for_keras(path: Path) -> bool:
    """Tell whether Keras may read a file: one that is damaged is no reason to import TensorFlow."""
    return path.suffix == ".keras" and path.is_file() and is_zipfile(path)


def _has_tensorflow() -> bool:
    return find_spec("tensorflow") is not None and find_spec("keras") is not None


def _has_gpu() -> bool:
    """Tell whether there is a GPU that this process may use, without asking its driver."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(Path("/dev").glob("nvidia[0-9]*"))

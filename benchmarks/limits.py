"""What one core of this machine can do at most, measured by `limits.c`.

Knows no network. A rate is the best of several runs, by the CPU time of this thread: what disturbs
it can only lower it.
"""

from __future__ import annotations

import ctypes
import subprocess
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

_FOLDER = TemporaryDirectory(prefix="limits-")
"""Where the program is built; it goes with this process."""
NUM_RUNS = 15
RUN_S = 0.01
HUGE_PAGE_BYTES = 2 << 20
LEVELS = {"L1": 16 << 10, "L2": 512 << 10, "L3": 8 << 20, "memory": 256 << 20}
"""Bytes that the level of cache of that name holds on most servers of today."""


@cache
def peak_flops(precision: str = "float32") -> float:
    """Return the FLOPs a second of multiply-adds that wait for nothing."""
    sink = ctypes.c_float(0)
    name = "limits_multiply_add" + ("_bfloat16" if precision == "bfloat16" else "")
    function = getattr(_library(), name)
    function.restype = ctypes.c_double
    count = 1 << 20
    best = 0.0
    for _ in range(NUM_RUNS):
        began = time.thread_time()
        flops = function(ctypes.c_size_t(count), ctypes.byref(sink))
        best = max(best, flops / (time.thread_time() - began))
    return best


@cache
def read_rate(num_bytes: int) -> float:
    """Return the bytes a second at which so many bytes are read again and again."""
    sink = ctypes.c_float(0)
    # NumPy asks for huge pages, which begin at such an address.
    memory = np.ones(num_bytes + HUGE_PAGE_BYTES, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % HUGE_PAGE_BYTES
    times = 1
    best = 0.0
    for _ in range(NUM_RUNS):
        began = time.thread_time()
        _library().limits_read(
            ctypes.c_void_p(start),
            ctypes.c_size_t(num_bytes),
            ctypes.c_size_t(times),
            ctypes.byref(sink),
        )
        rate = num_bytes * times / (time.thread_time() - began)
        best = max(best, rate)
        times = max(1, int(RUN_S * rate / num_bytes))
    return best


@cache
def _library() -> ctypes.CDLL:
    """Build the program."""
    library = str(Path(_FOLDER.name) / "limits.so")
    source = str(Path(__file__).with_name("limits.c"))
    options = ["-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared"]
    subprocess.run(["cc", *options, "-o", library, source], check=True)
    return ctypes.CDLL(library)

"""The native kernel's build: with sanitizers, on another machine, and without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_core.kernels import native

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted(path.name for path in (ROOT / "tests/unit").glob("test_native_*.py"))
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"


def copy_of_sources(target):
    """Copy what is needed to build and test the kernel, without anything that is built already."""
    without_builds = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "lstm_core", target / "lstm_core", ignore=without_builds)
    (target / "tests/unit").mkdir(parents=True)
    for name in (*TESTS, "native_networks.py"):
        shutil.copy(ROOT / "tests/unit" / name, target / "tests/unit")
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, target)


def run(root, *command, **environment):
    """Run a command of Python in a directory, on the sources there, and return what came of it."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def describe(root):
    """Return what the dispatch of a plain LSTM says there."""
    program = (
        "from lstm_core.network import Network, Recurrent\n"
        "from lstm_core.runtime.cpu import CpuRuntime\n"
        "from lstm_core.spec import LSTMSpec\n"
        "from lstm_core.weights import initialize\n"
        "spec = LSTMSpec(input_size=3, units=4)\n"
        "lstm = Recurrent(name='l', spec=spec, weights=initialize(spec, 0))\n"
        "(dispatch,) = CpuRuntime(Network('n', 3, (lstm,)), 1).dispatches.values()\n"
        "print(dispatch.kernel, dispatch.reason)\n"
    )
    done = run(root, "-c", program)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def library(name):
    """Return the path of a library of GCC's, or skip the test where there is none."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    command = ["gcc", f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"gcc has no {name}")
    return path


def test_the_kernel_under_sanitizers(tmp_path):
    """The kernel's tests find nothing for AddressSanitizer and UndefinedBehaviorSanitizer."""
    preloaded = f"{library('libasan.so')} {library('libubsan.so')}"
    copy_of_sources(tmp_path)
    built = run(
        tmp_path,
        "setup.py",
        "build_ext",
        "--inplace",
        CC="gcc",
        CFLAGS=SANITIZERS,
        LDFLAGS=SANITIZERS,
    )
    assert not built.returncode, built.stderr
    assert list((tmp_path / "lstm_core/kernels/native").glob("*.so")), built.stderr

    tests = [f"tests/unit/{name}" for name in TESTS]
    done = run(
        tmp_path,
        *("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *tests),
        LD_PRELOAD=preloaded,
        # Python keeps what it allocates to the end. And in the frames that are kept to find uses
        # after a return, GCC 14 misaligns AVX-512 vectors.
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0",
        LSTM_NATIVE_EXAMPLES="15",
        OPENBLAS_NUM_THREADS="1",
    )

    assert not done.returncode, done.stdout[-4000:] + done.stderr[-4000:]


def bits(compiler, target, *start, instruction_sets):
    """Build `tests/native/bits.c`, and return what it prints for each instruction set."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    kernel = ROOT / "lstm_core/kernels/native"
    without_python = [p for p in kernel.glob("*.c") if "python_types.h" not in p.read_text()]
    sources = [ROOT / "tests/native/bits.c", *without_python]
    # As in setup.py, but for the speed of what is built.
    options = ["-O1", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-pthread", "-Werror"]
    command = [compiler, "-static", *options, f"-I{kernel}", *sources, "-o", target]
    subprocess.run(command, check=True, timeout=120)
    return {
        name: subprocess.run(
            [*start, target, name], check=True, timeout=60, capture_output=True, text=True
        ).stdout.strip()
        for name in instruction_sets
    }


def test_the_law_holds_without_python_and_on_another_machine(tmp_path):
    """AArch64, emulated, has the same bits as x86-64: sessions may move between the two."""
    here = [name for name in native.instruction_sets() if name != "portable"]
    own = bits("gcc", tmp_path / "bits", instruction_sets=here)
    assert len(set(own.values())) <= 1
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("no qemu-aarch64")
    (other,) = bits(
        "aarch64-linux-gnu-gcc",
        tmp_path / "bits-aarch64",
        "qemu-aarch64",
        instruction_sets=["portable"],
    ).values()
    assert {other} >= set(own.values())


def test_without_a_compiler_the_installation_succeeds_and_numpy_runs(tmp_path):
    """The build says what it misses and how to mend it, and so does the dispatch."""
    copy_of_sources(tmp_path)

    built = run(tmp_path, "setup.py", "build_ext", "--inplace", CC="no-such-compiler")

    assert not built.returncode, built.stderr
    assert "the NumPy kernel will run" in built.stderr
    assert not list((tmp_path / "lstm_core/kernels/native").glob("*.so"))
    assert describe(tmp_path) == (
        "numpy NumPy takes every case; not native: it was not built when the package was installed:"
        " with a C compiler (GCC or Clang) on the machine, install the package again"
    )


def test_a_kernel_of_other_sources_is_not_run(tmp_path):
    """What was built before the interface changed is told apart from what was not built."""
    copy_of_sources(tmp_path)
    header = tmp_path / "lstm_core/kernels/native/python_types.h"
    text = header.read_text()
    assert "LSTM_NATIVE_INTERFACE 4\n" in text
    header.write_text(text.replace("LSTM_NATIVE_INTERFACE 4\n", "LSTM_NATIVE_INTERFACE 5\n"))
    built = run(tmp_path, "setup.py", "build_ext", "--inplace", CFLAGS="-O0")
    assert not built.returncode, built.stderr

    assert "not native: it was built from other sources" in describe(tmp_path)
    header.write_text(text)
    (tmp_path / "build").rename(tmp_path / "old")
    assert not run(tmp_path, "setup.py", "build_ext", "--inplace", "--force").returncode
    assert describe(tmp_path).startswith("native 4 units run in C on ")

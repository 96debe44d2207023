"""Builds the native kernel, where there is a compiler; everything else stands in pyproject.toml.

REQUIRE_NATIVE_KERNEL=1 in the environment makes a build without the kernel fail.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("lstm_core/kernels/native")


class BuildNative(build_ext):
    """Adds what only the build's own Python knows, and says what it means if the build fails."""

    def build_extension(self, ext: Extension) -> None:
        """Compile; a failure leaves the service on its NumPy kernel where `ext` is optional."""
        try:
            import numpy as np  # noqa: PLC0415 - metadata can be read without it

            ext.include_dirs.append(np.get_include())
            super().build_extension(ext)
        except Exception as error:
            print(  # noqa: T201
                f"The native kernel was not built ({error}): the NumPy kernel will run. With a C "
                "compiler (GCC or Clang) and Python's headers, install again.",
                file=sys.stderr,
            )
            raise CompileError(str(error)) from error


setup(
    cmdclass={"build_ext": BuildNative},
    ext_modules=[
        Extension(
            "lstm_core.kernels.native._kernel",
            sources=sorted(str(path) for path in NATIVE.glob("*.c")),
            depends=sorted(str(path) for path in NATIVE.glob("*.h")),
            # Where a product and a sum become one instruction is the source's decision.
            extra_compile_args=[
                "-O3",
                "-g0",
                "-std=gnu11",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fvisibility=hidden",
                "-pthread",
            ],
            extra_link_args=["-pthread"],
            optional=os.environ.get("REQUIRE_NATIVE_KERNEL") != "1",
        )
    ],
)

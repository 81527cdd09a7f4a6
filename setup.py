"""Builds the compiled kernels, and nothing else: everything about the project is in pyproject.toml.

A machine without a working C++17 compiler gets the pure Python package, which says so when asked (`xai-fast
doctor`). `XAI_FAST_NO_EXTENSION=1` skips the kernels on purpose.
"""

from __future__ import annotations

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext, has_flag
from setuptools import setup

SOURCES = sorted(str(path) for path in Path("csrc").glob("**/*.cpp"))
HEADERS = sorted(str(path) for path in Path("csrc").glob("**/*.h"))


class BuildKernels(build_ext):
    """Adds what this compiler understands: OpenMP is missing from Apple's, and the kernels do without."""

    def build_extensions(self) -> None:
        """Probes the compiler, then builds; `optional` below turns any failure into a warning."""
        openmp = has_flag(self.compiler, "-fopenmp")
        for extension in self.extensions:
            # No kernel reads errno or the flags of floating-point exceptions; keeping them right hinders vector code.
            extension.extra_compile_args += ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
            if openmp:
                extension.extra_compile_args.append("-fopenmp")
                extension.extra_link_args.append("-fopenmp")
        super().build_extensions()


kernels = Pybind11Extension(
    "xai_fast.ops._compiled", SOURCES, depends=HEADERS, include_dirs=["csrc"], cxx_std=17, optional=True
)
skip = os.environ.get("XAI_FAST_NO_EXTENSION", "0") not in ("", "0")

ParallelCompile("XAI_FAST_BUILD_JOBS", default=0).install()
setup(ext_modules=[] if skip else [kernels], cmdclass={"build_ext": BuildKernels})

"""The CUDA C++ kernels as `setup.py` builds them: for the architectures that are promised, within bounds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("80", "90", "100")
MAX_REGISTERS = 64


def build(folder, **variables):
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={folder}/lib", f"--build-temp={folder}/temp"],
        cwd=TOP,
        env={**os.environ, "XAI_FAST_CUDA": "1", "XAI_FAST_NO_EXTENSION": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def needs(*modules):
    for name in modules:
        pytest.importorskip(name)
    if not (TOP / "setup.py").exists():
        pytest.skip("the sources are not here")


def test_without_nvcc_the_build_that_asks_for_it_says_what_to_do(tmp_path):
    needs("pybind11", "setuptools")
    if Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("there is an nvcc where it is looked for in any case")
    done = build(tmp_path, PATH="/nonexistent", CUDA_HOME="", CUDA_PATH="")
    assert done.returncode != 0
    assert "put it on PATH or set CUDA_HOME" in done.stderr


@pytest.mark.slow
def test_kernels_compile_without_spilling(tmp_path):
    needs("pybind11", "setuptools")
    if shutil.which("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("no nvcc on PATH or in /usr/local/cuda: the CUDA C++ kernels are not compiled")
    done = build(tmp_path, XAI_FAST_CUDA_ARCHITECTURES=";".join(ARCHITECTURES))
    assert done.returncode == 0, done.stdout + done.stderr
    (library,) = (tmp_path / "lib").glob("**/_compiled_cuda*.so")
    loaded = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('xai_fast.ops._compiled_cuda', sys.argv[1]); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); print(m.architectures, m.region_gather.__name__)"
    )
    said = subprocess.run([sys.executable, "-c", loaded, library], capture_output=True, text=True, check=True).stdout
    assert said.split() == [";".join(ARCHITECTURES), "region_gather"]
    used = resources(library)
    for architecture in ARCHITECTURES:
        of_it = [numbers for name, numbers in used if name == f"sm_{architecture}"]
        assert len(of_it) > 50  # dtypes, sizes of pieces and of indices
        for numbers in of_it:
            assert numbers["REG"] <= MAX_REGISTERS
            assert numbers["STACK"] == numbers["LOCAL"] == 0


def resources(library):
    """Per kernel and architecture: registers per thread, and bytes of stack and local memory (where spills go)."""
    tool = shutil.which("cuobjdump") or shutil.which("/usr/local/cuda/bin/cuobjdump")
    if tool is None:
        triton = pytest.importorskip("triton")
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    report = subprocess.run([tool, "--dump-resource-usage", library], capture_output=True, text=True, check=True).stdout
    found, architecture = [], ""
    for line in report.splitlines():
        if named := re.search(r"arch = (sm_\d+)", line):
            architecture = named.group(1)
        if "REG:" in line:
            numbers = {name: int(re.search(rf"{name}:(\d+)", line).group(1)) for name in ("REG", "STACK", "LOCAL")}
            found.append((architecture, numbers))
    return found

"""The CUDA C++ kernels where there is no GPU: the same sources built by the host's compiler, thread after thread."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from xai_fast import ops
from xai_fast.ops._dispatch import Offer

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
KERNELS = ("hide_windows", "hide_segments", "region_gather")
MAX_BLOCKS = 5  # of a launch, so that few rows take several


def built_for_the_host():
    """The extension as the host's compiler builds it; skips in words where that cannot be."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None or not SOURCES.is_dir():
        pytest.skip("no C++ compiler, or no sources, to build the CUDA kernels for the host")
    files = [*sorted((SOURCES / "cuda").glob("*.cu")), SOURCES / "cuda" / "module.cpp"]
    text = b"".join(file.read_bytes() for file in sorted(SOURCES.glob("**/*.*")))
    tag = sysconfig.get_config_var("SOABI")
    key = hashlib.sha256(text + f"{tag} {MAX_BLOCKS}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"xai_fast_cuda_on_host_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made.so"
            includes = [f"-I{SOURCES}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
            options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-w"]
            command = [compiler, *options, f"-DXAI_FAST_MAX_BLOCKS={MAX_BLOCKS}", *includes, "-x", "c++", *files]
            subprocess.run([*command, "-o", made], check=True)
            made.replace(library)  # whole at once: another process may be looking
    spec = importlib.util.spec_from_file_location("xai_fast.ops._compiled_cuda", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def taking_the_place_of_a_gpu(module):
    """The backend "cuda" runs that extension on memory of the CPU."""
    changed = {name: ops.all_ops()[name] for name in KERNELS}
    kept = {name: (list(op._offers), dict(op._loaded)) for name, op in changed.items()}

    def on_host(name):
        kernel = getattr(module, name)
        return lambda: lambda *args: kernel(*args, 0, 0)

    try:
        for name, op in changed.items():
            op._offers[:] = [Offer("cuda", on_host(name), ()) if o.backend == "cuda" else o for o in op._offers]
            op._loaded.pop("cuda", None)
        yield
    finally:
        for name, op in changed.items():
            op._offers[:], op._loaded = kept[name]

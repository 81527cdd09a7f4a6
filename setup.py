"""Builds the compiled kernels, and nothing else: everything about the project is in pyproject.toml.

A machine without a working C++17 compiler gets the pure Python package, which says so when asked (`xai-fast
doctor`). `XAI_FAST_NO_EXTENSION=1` skips the kernels on purpose.

`XAI_FAST_CUDA=1` adds the kernels for GPUs, which take nvcc (on PATH, or in CUDA_HOME) and no GPU. They hold machine
code for `XAI_FAST_CUDA_ARCHITECTURES` ("80;90;100": those of them that this nvcc knows), and what later GPUs compile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pybind11 import get_include
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext, has_flag
from setuptools import setup

CUDA = Path("csrc/cuda")
SOURCES = sorted(str(path) for path in Path("csrc").glob("**/*.cpp") if CUDA not in path.parents)
HEADERS = sorted(str(path) for path in Path("csrc").glob("**/*.h"))
CUDA_SOURCES = sorted(str(path) for path in CUDA.glob("*.cu"))


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

    def build_extension(self, ext: Pybind11Extension) -> None:
        """Compiles what is for GPUs first, each file by nvcc, and links it with the rest."""
        if ext is for_gpus:
            nvcc = find_nvcc()
            targets = architectures(nvcc)
            ext.define_macros.append(("XAI_FAST_ARCHITECTURES", '"' + ";".join(targets) + '"'))
            folder = Path(self.build_temp)
            folder.mkdir(parents=True, exist_ok=True)
            commands = [nvcc_command(nvcc, targets, source, folder) for source in CUDA_SOURCES]
            running = [subprocess.Popen(command) for command in commands]
            if any([process.wait() for process in running]):
                raise SystemExit("nvcc could not compile the kernels for GPUs; its errors are above")
            ext.extra_objects += [command[-1] for command in commands]
            home = nvcc.resolve().parents[1]
            ext.library_dirs += [str(home / name) for name in ("lib64", "lib", "targets/x86_64-linux/lib")]
            ext.libraries += ["cudart_static", "rt", "pthread", "dl"]
        super().build_extension(ext)


def find_nvcc() -> Path:
    """Where nvcc is; SystemExit, which says what to do, where it is not."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = [Path(home) / "bin" / "nvcc" for home in (*homes, "/usr/local/cuda")]
    if found := shutil.which("nvcc"):
        places.insert(len(homes), Path(found))
    for place in places:
        if place.is_file():
            # What a wrapper stands for: the folder of the toolkit is the one above its real place.
            dry = subprocess.run([place, "--dryrun", "-c", "none.cu"], capture_output=True, text=True, check=False)
            tops = [line.split("TOP=", 1)[1] for line in dry.stderr.splitlines() if "TOP=" in line]
            real = Path(tops[0]) / "bin" / "nvcc" if tops else place
            return real if real.is_file() else place
    raise SystemExit(
        "`XAI_FAST_CUDA` asks for the kernels for GPUs but there is no nvcc; put it on PATH or set CUDA_HOME to the "
        "folder of the CUDA toolkit, or unset XAI_FAST_CUDA to do without them"
    )


def architectures(nvcc: Path) -> list[str]:
    """Those that are wanted, as far as this nvcc knows them; SystemExit where it knows none."""
    wanted = os.environ.get("XAI_FAST_CUDA_ARCHITECTURES", "80;90;100").replace(",", ";").split(";")
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    known = [name.removeprefix("compute_") for name in listed]
    chosen = sorted({name.strip() for name in wanted} & set(known), key=int)
    if not chosen:
        raise SystemExit(f"`XAI_FAST_CUDA_ARCHITECTURES` is {wanted}; this nvcc takes some of {', '.join(known)}")
    return chosen


def nvcc_command(nvcc: Path, targets: list[str], source: str, folder: Path) -> list[str]:
    """Compiles a file to an object, the last of the arguments."""
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in targets]
    codes.append(f"-gencode=arch=compute_{targets[-1]},code=compute_{targets[-1]}")
    host = ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
    made = str(folder / f"{Path(source).stem}.cuda.o")
    return [str(nvcc), "-std=c++17", "-O3", *codes, *host, "-Icsrc", f"-I{get_include()}", "-c", source, "-o", made]


def asked(name: str) -> bool:
    """Whether an environment variable is set to something else than nothing or 0."""
    return os.environ.get(name, "0") not in ("", "0")


# Source archives hold what extensions depend on, the sources for GPUs as well.
DEPENDS = [*HEADERS, *CUDA_SOURCES, str(CUDA / "module.cpp")]
kernels = Pybind11Extension(
    "xai_fast.ops._compiled", SOURCES, depends=DEPENDS, include_dirs=["csrc"], cxx_std=17, optional=True
)
for_gpus = Pybind11Extension(
    "xai_fast.ops._compiled_cuda",
    [str(CUDA / "module.cpp")],
    depends=DEPENDS,
    include_dirs=["csrc"],
    cxx_std=17,
)
chosen = [] if asked("XAI_FAST_NO_EXTENSION") else [kernels]
chosen += [for_gpus] if asked("XAI_FAST_CUDA") else []

ParallelCompile("XAI_FAST_BUILD_JOBS", default=0).install()
setup(ext_modules=chosen, cmdclass={"build_ext": BuildKernels})

"""The compiled kernels: loaded on first use, once, or the reason why they are absent."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # before the kernels: they then share the OpenMP library, and its threads, that torch loaded
from torch import Tensor

SETS = ("baseline", "avx2", "avx512", "avx512_bf16")  # of instructions, each with what those before it know
VARIABLE = "XAI_FAST_INSTRUCTIONS"


@functools.cache
def _load() -> ModuleType | str:
    try:
        module = importlib.import_module("xai_fast.ops._compiled")
    except ImportError as error:
        return f"no compiled kernels ({error}); reinstall xai_fast on a machine with a C++17 compiler"
    module.limit_instructions(_limit(module))
    return module


def _limit(module: ModuleType) -> str:
    name = os.environ.get(VARIABLE) or module.best_instructions()
    if name not in SETS:
        raise ValueError(f"`{VARIABLE}` is {name!r}, which is no set of instructions; choose one of {', '.join(SETS)}")
    return name


def no_library(*_: Any) -> str | None:
    """Returns why the compiled kernels cannot be used on this machine, or None when they can."""
    library = _load()
    return library if isinstance(library, str) else None


def older_than(name: str) -> Callable[..., str | None]:
    """Returns a reason, for `Op.offer`, why kernels that were built before `name` was written cannot be used."""
    reason = f"the compiled kernels are older than {name}; build them again (`pip install .`)"
    return lambda *_: reason if no_library() is None and not hasattr(_load(), name) else None


def compiled(name: str) -> Callable[[], Callable[..., Any]]:
    """Returns a loader of the compiled function `name`, for `Op.offer`."""
    return lambda: getattr(_load(), name)


@functools.cache
def _load_cuda() -> ModuleType | str:
    try:
        return importlib.import_module("xai_fast.ops._compiled_cuda")
    except ImportError as error:
        return f"no CUDA C++ kernels ({error}); `XAI_FAST_CUDA=1 pip install .` builds them where nvcc is"


def no_cuda(*_: Any) -> str | None:
    """Returns why the CUDA C++ kernels cannot be used on this machine, or None when they can."""
    library = _load_cuda()
    if isinstance(library, str):
        return library
    return None if torch.cuda.is_available() else "no CUDA device"


def not_for_device(*args: Any) -> str | None:
    """Refuses what the CUDA C++ kernels cannot read: tensors elsewhere, or on a device that they were not built for."""
    for value in args:
        if isinstance(value, Tensor):
            if not value.is_cuda:
                return f"a tensor is on {value.device}, not on a CUDA device"
            if type(value) is not Tensor and type(value) is not torch.nn.Parameter:
                return f"a tensor is a {type(value).__name__}, whose memory only torch understands"
            if reason := _too_old(value.device.index):
                return reason
    return None


@functools.lru_cache(maxsize=64)
def _too_old(index: int) -> str | None:
    """Why a device runs none of the machine code that was built; a later one compiles what is kept for it."""
    library = _load_cuda()
    assert not isinstance(library, str), library
    major, minor = torch.cuda.get_device_capability(index)
    built = [int(name) for name in library.architectures.split(";") if name]
    if built and min(built) <= 10 * major + minor:
        return None
    return (
        f"the device has compute capability {major}.{minor}; kernels were built for {library.architectures or 'none'}"
    )


def launched(name: str) -> Callable[[], Callable[..., None]]:
    """Returns a loader of the CUDA C++ kernel `name`, queued on torch's current stream, for `Op.offer`."""

    def load() -> Callable[..., None]:
        kernel = getattr(_load_cuda(), name)

        def run(*args: Any) -> None:
            device = next(value for value in args if isinstance(value, Tensor)).device.index
            kernel(*args, device, torch.cuda.current_stream(device).cuda_stream)

        return run

    return load


def instruction_sets() -> tuple[str, ...]:
    """Returns the sets of instructions that the compiled kernels may use here, smallest first; none without kernels."""
    library = _load()
    if isinstance(library, str):
        return ()
    largest = min(SETS.index(library.best_instructions()), SETS.index(_limit(library)))
    return SETS[: largest + 1]


@contextmanager
def limited_to(name: str) -> Iterator[None]:
    """Lets kernels use no more than the set `name` of `instruction_sets()`, in all threads: for tests."""
    library = _load()
    assert not isinstance(library, str), library
    library.limit_instructions(name)
    try:
        yield
    finally:
        library.limit_instructions(_limit(library))

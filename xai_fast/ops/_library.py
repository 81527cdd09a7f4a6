"""The compiled kernels: loaded on first use, once, or the reason why they are absent."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # noqa: F401  # before the kernels: they then share the OpenMP library, and its threads, that torch loaded

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


def compiled(name: str) -> Callable[[], Callable[..., None]]:
    """Returns a loader of the compiled function `name`, for `Op.offer`."""
    return lambda: getattr(_load(), name)


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

"""The compiled kernels: loaded on first use, once, or the reason why they are absent."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch  # noqa: F401  # before the kernels: they then share the OpenMP library, and its threads, that torch loaded


@functools.cache
def _load() -> ModuleType | str:
    try:
        return importlib.import_module("xai_fast.ops._compiled")
    except ImportError as error:
        return f"no compiled kernels ({error}); reinstall xai_fast on a machine with a C++17 compiler"


def no_library(*_: Any) -> str | None:
    """Returns why the compiled kernels cannot be used on this machine, or None when they can."""
    library = _load()
    return library if isinstance(library, str) else None


def compiled(name: str) -> Callable[[], Callable[..., None]]:
    """Returns a loader of the compiled function `name`, for `Op.offer`."""
    return lambda: getattr(_load(), name)

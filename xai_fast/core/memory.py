"""What says that memory ran out, and what gives back memory that nobody uses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        phrase in str(error).lower() for phrase in ("out of memory", "can't allocate memory", "not enough memory")
    )


def give_back() -> None:
    """Gives memory that was freed back to the system, where the C library (glibc) keeps it between blocks in use."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no library without a name
        return None

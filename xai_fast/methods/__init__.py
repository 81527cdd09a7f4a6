"""The methods, one final class each, named as its paper names it. The package is also the function `methods()`."""

from __future__ import annotations

from typing import Any

from xai_fast._callable import make_callable

from .registry import MethodInfo, methods

__all__ = ["MethodInfo", "methods"]

make_callable(__name__, methods)


def __getattr__(name: str) -> Any:
    known = methods()
    if name in known:
        return known[name].cls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

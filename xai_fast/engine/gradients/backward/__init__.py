"""Gradients without autograd's bookkeeping: an explicit backward over the captured, fused forward."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .rectifier import Rule, rectified

if TYPE_CHECKING:
    from .tape import Backward, Run, backward_of

__all__ = ["Backward", "Rule", "Run", "backward_of", "rectified"]


def __getattr__(name: str) -> Any:
    """What a first backward needs: imported then, since every import of the engine would pay for it."""
    if name in ("Backward", "Run", "backward_of"):
        return getattr(importlib.import_module(f"{__name__}.tape"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

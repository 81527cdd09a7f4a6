"""The rescale rule on a captured model: multipliers of differences instead of gradients, by one explicit backward."""

from __future__ import annotations

from .rescale import Rescale, Run, rescale_of

__all__ = ["Rescale", "Run", "rescale_of"]

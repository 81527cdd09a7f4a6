"""Captum's Shapley values and surrogates: its own draws, fits and sums over the engine's scores, many rows at once.

Not covered: a bar of progress.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Call

from .arguments import rows_of
from .services import several_at_once, with_scores


def shapley(call: Call) -> Any:
    """Captum's orders."""
    served = with_scores(call)
    return call.plain(served, perturbations_per_eval=several_at_once(call, rows_of(call)))


def surrogate(call: Call) -> Any:
    """Captum's coalitions, kernel and linear model; it explains the inputs of a batch one after the other."""
    return call.plain(with_scores(call), perturbations_per_eval=several_at_once(call, 1))

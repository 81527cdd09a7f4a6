"""Captum's Shapley values and surrogates: its own draws, fits and sums over the engine's scores, many rows at once.

Not covered: a bar of progress.
"""

from __future__ import annotations

import math
from typing import Any

from xai_fast.compat.calls import Call
from xai_fast.compat.worth import Work

from .arguments import features_of, number_of, rows_of
from .services import several_at_once, with_scores


def shapley(call: Call) -> Any:
    """Captum's orders."""
    inputs, features = rows_of(call), features_of(call)
    # Every order of the features where no number of them is asked for; captum warns from ten on.
    orders = number_of(call, "n_samples") if "n_samples" in call.defaults else math.factorial(min(features, 10))
    asks = orders * max(features // number_of(call, "perturbations_per_eval"), 1)
    served = with_scores(call, Work(inputs * orders * features, asks))
    return call.plain(served, perturbations_per_eval=several_at_once(call, inputs))


def surrogate(call: Call) -> Any:
    """Captum's coalitions, kernel and linear model; it explains the inputs of a batch one after the other."""
    rows = rows_of(call) * number_of(call, "n_samples")
    served = with_scores(call, Work(rows, max(rows // number_of(call, "perturbations_per_eval"), 1)))
    return call.plain(served, perturbations_per_eval=several_at_once(call, 1))

"""Maps that need only the clean inputs: a formula of one pass, or nothing but the scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers


class CleanFormula:
    """Applies a formula to the answers of the clean inputs, chunk by chunk, and stacks the maps.

    Args:
        formula: (inputs (rows,) that were asked about, answers) to maps (rows, K, ...).
    """

    def __init__(self, formula: Callable[[Tensor, Answers], Tensor]) -> None:
        self._formula = formula
        self._maps: list[Tensor] = []

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Clean rows come in order, so appending keeps it."""
        self._maps.append(self._formula(sample, answers))

    def update(self, rows: Tensor, answers: Answers) -> None:
        """A recipe with this reducer has no variants."""
        raise AssertionError("CleanFormula was handed a variant")

    def finish(self) -> Tensor:
        """(N, K, ...)."""
        return torch.cat(self._maps)


def clean_scores() -> CleanFormula:
    """The scores themselves, (N, K)."""
    return CleanFormula(lambda _sample, answers: answers.scores)

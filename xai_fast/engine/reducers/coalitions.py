"""The scores of coalitions, of which an estimator makes values of segments, laid over positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xai_fast.core.segments import SegmentMap
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details
from xai_fast.engine.samplers.coalitions import Coalitions

from .segments import laid_over


@dataclass(frozen=True)
class Values:
    """What an estimator says about the S segments of one input, for K targets; float64 on the CPU.

    Attributes:
        values: (K, S).
        standard_error: (K, S), or None.
        gap: (K,) their sum less what it should be, or None.
        fit: (K,) the share of the scores' weighted variance that a surrogate explains, or None.
    """

    values: Tensor
    standard_error: Tensor | None = None
    gap: Tensor | None = None
    fit: Tensor | None = None


class Estimator(Protocol):
    """From the scores of an input's draws to values of its segments."""

    def __call__(self, scores: Tensor, clean: Tensor) -> Values:
        """Takes scores (D, K) of the draws and (K,) of the input itself."""
        ...


class CoalitionValues:
    """Keeps one number per row and score; every position carries the value of its segment, 0 where there is none.

    Args:
        segments: of the inputs.
        coalitions: the rows.
        counts: LongTensor (N,) draws of each input.
        estimators: per input.
    """

    def __init__(
        self, segments: SegmentMap, coalitions: Coalitions, counts: Tensor, estimators: Sequence[Estimator]
    ) -> None:
        self._labels, self._coalitions, self._counts, self._estimators = segments.labels, coalitions, counts, estimators
        self._clean: Tensor | None = None
        self._scores: Tensor | None = None
        self._found: list[Values] = []

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Keeps f(x)."""
        if self._clean is None:
            width = answers.scores.shape[1]
            self._clean = answers.scores.new_empty(len(self._counts), width)
            self._scores = answers.scores.new_empty(len(self._coalitions), width)
        self._clean[sample] = answers.scores

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Keeps f(coalition)."""
        assert self._scores is not None
        self._scores[rows] = answers.scores

    def finish(self) -> Tensor:
        """(N, K, 1, *S)."""
        assert self._clean is not None
        assert self._scores is not None
        draws = self._coalitions.row_of.split(self._counts.tolist())
        scores, ends = (kept.double().cpu() for kept in (self._scores, self._clean))
        per_input = zip(self._estimators, draws, ends, strict=True)
        self._found = [estimate(scores[rows], clean) for estimate, rows, clean in per_input]
        return self._laid([found.values for found in self._found])

    def details(self, scores: Tensor) -> Details:
        """Standard errors over the same positions, gaps and fits, where the estimator has them."""
        errors = [found.standard_error for found in self._found if found.standard_error is not None]
        gaps = [found.gap for found in self._found if found.gap is not None]
        fits = [found.fit for found in self._found if found.fit is not None]
        every = len(self._found)
        return Details(
            gap=torch.stack(gaps) if len(gaps) == every else None,
            fit=torch.stack(fits) if len(fits) == every else None,
            standard_error=self._laid(errors) if len(errors) == every else None,
        )

    def _laid(self, values: Sequence[Tensor]) -> Tensor:
        most = max(value.shape[1] for value in values)
        padded = [torch.nn.functional.pad(value, (0, most - value.shape[1])) for value in values]
        return laid_over(self._labels, torch.stack(padded))

"""The scores of coalitions, of which an estimator makes values of segments, laid over positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details
from xai_fast.engine.samplers.coalitions import Coalitions
from xai_fast.images.segments import SegmentMap

from .levels import well_enough
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


@dataclass(frozen=True)
class Stage:
    """From where on there is an estimate.

    Attributes:
        n_draws: how many of an input's draws, in their order, it takes.
        estimate: what it makes of their scores.
    """

    n_draws: int
    estimate: Estimator


class CoalitionValues:
    """Keeps one number per row and score; every position carries the value of its segment, 0 where there is none.

    Args:
        segments: of the inputs.
        coalitions: the rows.
        counts: LongTensor (N,) draws of each input.
        stages: per input, in the order of their draws; the last one takes all.
        enough: where a recipe's `levels` are those of `level_by_level`, the share of a map's norm to which its standard
            error has to fall for a stage to be the last that is asked for.
    """

    def __init__(
        self,
        segments: SegmentMap,
        coalitions: Coalitions,
        counts: Tensor,
        stages: Sequence[Sequence[Stage]],
        enough: float = 0.0,
    ) -> None:
        self._labels, self._coalitions, self._stages, self._enough = segments.labels, coalitions, stages, enough
        self._rows = coalitions.row_of.split(counts.tolist())
        self._reached = [len(some) - 1 for some in stages]
        self._asked = torch.zeros(len(coalitions), dtype=torch.bool)
        self._clean: Tensor | None = None
        self._scores: Tensor | None = None
        self._found: dict[int, Values] = {}

    @property
    def n_levels(self) -> list[int]:
        """A level for every stage."""
        return [len(some) for some in self._stages]

    def advance(self, sample: int, level: int) -> Tensor:
        """Takes an input to a stage; the rows of its draws that no draw before has asked for."""
        rows = self._rows[sample][: self._stages[sample][level].n_draws].unique()
        rows = rows[~self._asked[rows]]
        self._asked[rows] = True
        self._reached[sample] = level
        self._found.pop(sample, None)
        return rows

    def settled(self, samples: Sequence[int]) -> list[int]:
        """The inputs whose estimates err by little enough."""
        self._estimate(samples)
        return [sample for sample in samples if self._known(sample, self._found[sample])]

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Keeps f(x)."""
        if self._clean is None:
            width = answers.scores.shape[1]
            self._clean = answers.scores.new_empty(len(self._rows), width)
            self._scores = answers.scores.new_empty(len(self._coalitions), width)
        self._clean[sample] = answers.scores

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Keeps f(coalition)."""
        assert self._scores is not None
        self._scores[rows] = answers.scores

    def finish(self) -> Tensor:
        """(N, K, 1, *S)."""
        every = range(len(self._rows))
        self._estimate([sample for sample in every if sample not in self._found])
        return self._laid([self._found[sample].values for sample in every])

    def details(self, scores: Tensor) -> Details:
        """Standard errors over the same positions, gaps and fits, where the estimator has them."""
        every = [self._found[sample] for sample in range(len(self._rows))]
        errors = [found.standard_error for found in every if found.standard_error is not None]
        gaps = [found.gap for found in every if found.gap is not None]
        fits = [found.fit for found in every if found.fit is not None]
        return Details(
            gap=torch.stack(gaps) if len(gaps) == len(every) else None,
            fit=torch.stack(fits) if len(fits) == len(every) else None,
            standard_error=self._laid(errors) if len(errors) == len(every) else None,
        )

    def _estimate(self, samples: Sequence[int]) -> None:
        """Finds the values of inputs at the stages that they have reached."""
        if not samples:
            return
        assert self._clean is not None
        assert self._scores is not None
        stages = [self._stages[sample][self._reached[sample]] for sample in samples]
        rows = [self._rows[sample][: stage.n_draws] for sample, stage in zip(samples, stages, strict=True)]
        # Gathered where they are: those of all inputs would be too much to move at every level.
        scores = self._scores[torch.cat(rows)].double().cpu().split([len(some) for some in rows])
        clean = self._clean[torch.tensor(samples)].double().cpu()
        for sample, stage, some, own in zip(samples, stages, scores, clean, strict=True):
            self._found[sample] = stage.estimate(some, own)

    def _known(self, sample: int, found: Values) -> bool:
        if found.standard_error is None:
            return False
        labels = self._labels[sample]
        sizes = torch.bincount(labels[labels >= 0], minlength=found.values.shape[1])
        return well_enough(found.values, found.standard_error, self._enough, sizes)

    def _laid(self, values: Sequence[Tensor]) -> Tensor:
        most = max(value.shape[1] for value in values)
        padded = [torch.nn.functional.pad(value, (0, most - value.shape[1])) for value in values]
        return laid_over(self._labels, torch.stack(padded))

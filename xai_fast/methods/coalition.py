"""What methods that ask about coalitions of segments share: segments, a baseline, draws keyed by the sample's id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.baselines import Baseline, check_baseline, resolve_baseline
from xai_fast.core.segments import Segments, check_segments, label_map
from xai_fast.engine import Recipe
from xai_fast.engine.reducers.coalitions import CoalitionValues, Estimator
from xai_fast.engine.samplers.coalitions import Coalitions, Draws

from .base import AbstractMethod, Resolution
from .checks import check_seed


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractCoalitionMethod(AbstractMethod):
    """Random coalitions of segments, scored once each, and an estimate made of the scores."""

    segments: Segments
    baseline: Baseline = 0.0
    seed: int = 0

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """Coalitions shown and scored; the own grid is the input's."""
        segments = label_map(self.segments, inputs, self.engine.preprocess)
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess, segments)
        keys = torch.zeros(len(inputs), dtype=torch.long) if sample_ids is None else sample_ids.cpu()
        draws, estimators = self.drawn(list(zip(segments.counts.tolist(), keys.tolist(), strict=True)))
        coalitions = Coalitions(inputs, baseline, segments, draws)
        return Recipe(variants=coalitions, reduce=CoalitionValues(segments, coalitions, draws.counts, estimators))

    @abstractmethod
    def drawn(self, games: Sequence[tuple[int, int]]) -> tuple[Draws, Sequence[Estimator]]:
        """The draws of all inputs, and each one's estimator; of an input are given its segments and its key."""

    def _check(self) -> None:
        object.__setattr__(self, "segments", check_segments(self.segments, overlapping=False))
        check_baseline(self.baseline, segmented=True)
        check_seed(self.seed)


def table_of(shown: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Draws (D, S) of each input below each other, (ΣD, largest S), and how many each has."""
    most = max(rows.shape[1] for rows in shown)
    padded = [torch.nn.functional.pad(rows, (0, most - rows.shape[1])) for rows in shown]
    return torch.cat(padded), torch.tensor([len(rows) for rows in shown])


def all_coalitions(n: int) -> int:
    """How many coalitions n segments have, or as many as anyone would ask for."""
    return 1 << min(n, 62)

"""What methods that ask about coalitions of segments share: segments, a baseline, draws keyed by the sample's id."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.engine import Recipe
from xai_fast.engine.reducers.coalitions import CoalitionValues, Stage
from xai_fast.engine.reducers.levels import level_by_level
from xai_fast.engine.samplers.coalitions import Coalitions, Draws
from xai_fast.images.baselines import Baseline, check_baseline, resolve_baseline
from xai_fast.images.segments import Segments, check_segments, label_map

from .base import AbstractMethod, Resolution
from .checks import check_seed


@dataclass(frozen=True)
class Drawn:
    """Coalitions, and what is made of their scores.

    Attributes:
        draws: of all inputs.
        stages: per input, one after the other; several where a method may stop before its last draw.
        enough: the standard error at which it stops, as a share of the map, both in their L2 norms.
    """

    draws: Draws
    stages: Sequence[Sequence[Stage]]
    enough: float = 0.0


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
        drawn = self.drawn(list(zip(segments.counts.tolist(), keys.tolist(), strict=True)))
        coalitions = Coalitions(inputs, baseline, segments, drawn.draws)
        values = CoalitionValues(segments, coalitions, drawn.draws.counts, drawn.stages, drawn.enough)
        several = any(len(stages) > 1 for stages in drawn.stages)
        levels = functools.partial(level_by_level, values) if several else None
        return Recipe(variants=coalitions, reduce=values, levels=levels)

    @abstractmethod
    def drawn(self, games: Sequence[tuple[int, int]]) -> Drawn:
        """What is drawn for all inputs, of each of which its number of segments and its key are given."""

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

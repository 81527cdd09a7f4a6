"""Scores of inputs behind random grids made a map: masks are weighted by their scores and added up, shift by shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.core.indices import on_device, spanning
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details
from xai_fast.engine.samplers.grids import GROUPS, BehindGrids
from xai_fast.ops import grid_maps, grid_reduce

from .levels import well_enough

_FEWEST = 2  # draws, or pairs of them, without which a group has no say in what a map errs by
_AT_ONCE = 1 << 22  # elements of the maps or bins that are worked on together: 32 MB, several times
_MOST_ERRORS = 1 << 25  # elements of all maps up to which their errors are kept where nothing depends on them


class GridMeans:
    """sum_m f(x_m) mask_m / (n keep), or of f(x_m) less the mean of all f(x_m); and what that errs by.

    The scores are kept and the masks are not: the bits of their grids are drawn a second time.

    Args:
        variants: the rows, which say what was drawn.
        centred: whether the mean is subtracted.
        marks: after how many masks of an input there may be a map, ascending; the last is all of them. None given:
            after all.
        enough: where a recipe's `levels` are those of `level_by_level`, the share of a map's norm to which its standard
            error has to fall for a mark to be the last that is asked for.
    """

    def __init__(self, variants: BehindGrids, *, centred: bool, marks: Sequence[int] = (), enough: float = 0.0) -> None:
        self._variants, self._centred, self._enough = variants, centred, enough
        self._marks = tuple(marks) or (variants.n_masks,)
        assert self._marks[-1] == variants.n_masks
        self._reached = torch.full((len(variants.inputs),), variants.n_masks)
        self._scores: Tensor | None = None
        self._errors: Tensor | None = None

    @property
    def n_levels(self) -> list[int]:
        """A level for every mark."""
        return [len(self._marks)] * len(self._reached)

    def advance(self, sample: int, level: int) -> Tensor:
        """Takes an input to a mark; the masks from the one before on."""
        begin, end = (0, *self._marks)[level], self._marks[level]
        self._reached[sample] = end
        return sample * self._variants.n_masks + torch.arange(begin, end)

    def settled(self, samples: Sequence[int]) -> list[int]:
        """The inputs whose maps err by little enough."""
        return [sample for sample in samples if self._known(sample)]

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Makes room; the clean scores themselves have no part in the map."""
        if self._scores is None:
            self._scores = answers.scores.new_empty(len(self._variants), answers.scores.shape[1])

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Keeps f(x_m): one number per row and score."""
        assert self._scores is not None
        self._scores[rows] = answers.scores

    def finish(self) -> Tensor:
        """(N, K, 1, *S)."""
        assert self._scores is not None
        inputs = self._variants.inputs
        maps = self._scores.new_empty((len(inputs), self._scores.shape[1], 1, *inputs.shape[2:]))
        # Who stopped at an error states it, however large the maps.
        kept = len(self._marks) > 1 or maps.numel() <= _MOST_ERRORS
        stated = kept and self._stated(int(self._reached.min()))
        self._errors = torch.empty_like(maps) if stated else None
        for sample in range(len(inputs)):
            self._add_up(sample, maps[sample, :, 0], self._errors[sample, :, 0] if self._errors is not None else None)
        return maps

    def details(self, scores: Tensor) -> Details:
        """The maps' standard errors, where there are enough draws."""
        return Details(standard_error=self._errors)

    def _stated(self, n_masks: int) -> bool:
        """Whether so many masks say what their map errs by."""
        return n_masks // self._variants.draw.together >= GROUPS * _FEWEST

    def _known(self, sample: int) -> bool:
        assert self._scores is not None
        if not self._stated(int(self._reached[sample])):
            return False
        space = self._variants.inputs.shape[2:]
        values, errors = self._scores.new_empty(2, self._scores.shape[1], *space, dtype=torch.float64)
        self._add_up(sample, values, errors)
        return well_enough(values, errors, self._enough)

    def _add_up(self, sample: int, values: Tensor, errors: Tensor | None) -> None:
        """Writes the maps (K, *S) of one input, and their errors."""
        assert self._scores is not None
        n_masks = int(self._reached[sample])
        first = sample * self._variants.n_masks
        draw = torch.arange(n_masks)
        scores = self._scores[first : first + n_masks].double()
        masks = self._variants.masks(spanning(first, first + n_masks, scores.device))
        group = torch.zeros_like(draw) if errors is None else self._variants.draw.group_of(draw)
        n_groups = int(group.max()) + 1
        weights = scores - scores.mean(0) if self._centred else scores
        columns = self._together(values[0].numel())
        for some in torch.arange(scores.shape[1]).split(max(columns // n_groups, 1)):
            targets = slice(int(some[0]), int(some[-1]) + 1)
            sums = _Sums()
            for groups in torch.arange(n_groups).split(columns):
                self._add_groups(groups, group, masks, weights[:, targets], sums)
            values[targets] = sums.total / n_masks
            if errors is not None:
                errors[targets] = sums.standard_error(n_masks)

    def _add_groups(
        self, groups: Tensor, group: Tensor, masks: tuple[Tensor, Tensor], weights: Tensor, sums: _Sums
    ) -> None:
        """Adds up the masks of some groups (G,), each for itself, for the weights (n, T) of some targets."""
        draws = torch.isin(group, groups).nonzero()[:, 0]
        own = group[draws, None] == groups
        sizes = own.sum(0)
        here, own = on_device(draws, weights.device), own.to(weights)
        mine = weights[here, None] * own[..., None]  # (draws, G, T)
        grids, shifts = (drawn[here] for drawn in masks)
        source = self._variants.draw
        bins = weights.new_zeros(*source.positions, mine[0].numel(), *grids.shape[1:])
        parts = grid_maps(grid_reduce(grids, shifts, mine.flatten(1), bins), source.extents) / source.keep
        # The mean that is subtracted errs with the scores of a group: by as much of it as they have of them.
        slack = mine.sum(0) if self._centred else torch.zeros_like(mine[0])
        sums.add(parts.unflatten(0, slack.shape), slack, sizes)

    def _together(self, elements: int) -> int:
        """How many targets' groups are worked on at once, maps having so many elements."""
        source = self._variants.draw
        bins = torch.Size(source.positions).numel() * source.cells ** len(source.extents)
        return max(_AT_ONCE // max(bins, elements), 1)


class _Sums:
    """What is added up over groups of n_g draws with the sums S_g: the sum of all, and how far groups are apart."""

    def __init__(self) -> None:
        self.total: Tensor = torch.zeros(())
        self._squares: Tensor = torch.zeros(())
        self._by_size: Tensor = torch.zeros(())
        self._sizes: list[float] = []

    def add(self, parts: Tensor, slack: Tensor, sizes: Tensor) -> None:
        """Takes sums of groups (G, T, *S), of n_g = `sizes` (G,) draws (CPU); apart they count less `slack` (G, T)."""
        self.total = self.total + parts.sum(0)
        apart = parts - slack.view(*slack.shape, *[1] * (parts.ndim - 2))
        self._squares = self._squares + apart.square().sum(0)
        self._by_size = self._by_size + torch.tensordot(sizes.to(apart), apart, 1)
        self._sizes += sizes.tolist()

    def standard_error(self, n_masks: int) -> Tensor:
        """Of the mean: the root of G / (G - 1) sum_g (S_g - n_g mean)^2 / n^2."""
        count, mean = len(self._sizes), self.total / n_masks
        spread = self._squares - 2 * mean * self._by_size + mean.square() * sum(size**2 for size in self._sizes)
        return (spread.clamp_min(0) * (count / (count - 1))).sqrt() / n_masks

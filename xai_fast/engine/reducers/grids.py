"""Scores of inputs behind random grids made a map: masks are weighted by their scores and added up, shift by shift."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details
from xai_fast.engine.samplers.grids import GROUPS, BehindGrids
from xai_fast.ops import grid_maps, grid_reduce

_FEWEST = 2  # draws, or pairs of them, without which a group has no say in what a map errs by
_AT_ONCE = 1 << 22  # elements of the maps or bins that are worked on together: 32 MB, several times
_MOST_ERRORS = 1 << 25  # elements of all maps up to which their errors are kept


class GridMeans:
    """sum_m f(x_m) mask_m / (n keep), or of f(x_m) less the mean of all f(x_m); and what that errs by.

    The scores are kept and the masks are not: the bits of their grids are drawn a second time.

    Args:
        variants: the rows, which say what was drawn.
        centred: whether the mean is subtracted.
    """

    def __init__(self, variants: BehindGrids, *, centred: bool) -> None:
        self._variants, self._centred = variants, centred
        self._scores: Tensor | None = None
        self._errors: Tensor | None = None

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
        shape = (len(inputs), self._scores.shape[1], 1, *inputs.shape[2:])
        maps = self._scores.new_empty(shape)
        draw, source = torch.arange(self._variants.n_masks), self._variants.draw
        group = torch.zeros_like(draw)
        if len(draw) // source.together >= GROUPS * _FEWEST and maps.numel() <= _MOST_ERRORS:
            self._errors, group = torch.empty_like(maps), source.group_of(draw)
        for sample, scores in enumerate(self._scores.double().view(len(inputs), self._variants.n_masks, -1)):
            self._add_up(sample, scores, group, maps)
        return maps

    def details(self, scores: Tensor) -> Details:
        """The maps' standard errors, where there are enough draws."""
        return Details(standard_error=self._errors)

    def _add_up(self, sample: int, scores: Tensor, group: Tensor, maps: Tensor) -> None:
        """Writes the maps of one input, from its scores (n, K), into `maps`, and their errors."""
        n_masks, n_groups = len(scores), int(group.max()) + 1
        masks = self._variants.masks(torch.arange(sample * n_masks, (sample + 1) * n_masks))
        weights = scores - scores.mean(0) if self._centred else scores
        columns = self._together(maps)
        for some in torch.arange(scores.shape[1]).split(max(columns // n_groups, 1)):
            targets = slice(int(some[0]), int(some[-1]) + 1)
            sums = _Sums()
            for groups in torch.arange(n_groups).split(columns):
                self._add_groups(groups, group, masks, weights[:, targets], sums)
            maps[sample, targets, 0] = sums.total / n_masks
            if self._errors is not None:
                self._errors[sample, targets, 0] = sums.standard_error(n_masks)

    def _add_groups(
        self, groups: Tensor, group: Tensor, masks: tuple[Tensor, Tensor], weights: Tensor, sums: _Sums
    ) -> None:
        """Adds up the masks of some groups (G,), each for itself, for the weights (n, T) of some targets."""
        draws = torch.isin(group, groups).nonzero()[:, 0]
        own = group[draws, None] == groups
        sizes = own.sum(0).to(weights)
        mine = weights[draws.to(weights.device), None] * own.to(weights)[..., None]  # (draws, G, T)
        grids, shifts = (drawn[draws] for drawn in masks)
        source = self._variants.draw
        bins = weights.new_zeros(*source.positions, mine[0].numel(), *grids.shape[1:])
        parts = grid_maps(grid_reduce(grids, shifts, mine.flatten(1), bins), source.extents) / source.keep
        # The mean that is subtracted errs with the scores of a group: by as much of it as they have of them.
        slack = mine.sum(0) if self._centred else torch.zeros_like(mine[0])
        sums.add(parts.unflatten(0, slack.shape), slack, sizes)

    def _together(self, maps: Tensor) -> int:
        """How many targets' groups are worked on at once."""
        source = self._variants.draw
        bins = torch.Size(source.positions).numel() * source.cells ** len(source.extents)
        return max(_AT_ONCE // max(bins, maps[0, 0].numel()), 1)


class _Sums:
    """What is added up over groups of n_g draws with the sums S_g: the sum of all, and how far groups are apart."""

    def __init__(self) -> None:
        self.total: Tensor = torch.zeros(())
        self._squares: Tensor = torch.zeros(())
        self._by_size: Tensor = torch.zeros(())
        self._sizes: list[float] = []

    def add(self, parts: Tensor, slack: Tensor, sizes: Tensor) -> None:
        """Takes the sums of groups (G, T, *S), of n_g = `sizes` (G,) draws; apart they count less `slack` (G, T)."""
        self.total = self.total + parts.sum(0)
        apart = parts - slack.view(*slack.shape, *[1] * (parts.ndim - 2))
        self._squares = self._squares + apart.square().sum(0)
        self._by_size = self._by_size + torch.tensordot(sizes, apart, 1)
        self._sizes += sizes.tolist()

    def standard_error(self, n_masks: int) -> Tensor:
        """Of the mean: the root of G / (G - 1) sum_g (S_g - n_g mean)^2 / n^2."""
        count, mean = len(self._sizes), self.total / n_masks
        spread = self._squares - 2 * mean * self._by_size + mean.square() * sum(size**2 for size in self._sizes)
        return (spread.clamp_min(0) * (count / (count - 1))).sqrt() / n_masks

"""RISE and D-RISE: what does the model say where random parts of the input are seen?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.reducers.grids import GridMeans
from xai_fast.engine.reducers.levels import level_by_level, marks
from xai_fast.engine.samplers.grids import BehindGrids, GridDraws
from xai_fast.images.baselines import Baseline, check_baseline, resolve_baseline

from .base import AbstractMethod, Resolution
from .checks import check_choice, check_count, check_seed, check_tolerance

_FIRST = 160  # masks, or pairs of them, after which errors are looked at first: 8 in each of 20 groups
# Maps that are not centred err mostly as a whole. One number is off by more than twice its standard error in 5 of 100
# cases, a norm of many by hardly more than its own.
_AS_A_WHOLE = 0.75
SAMPLERS = ("bernoulli", "stratified", "antithetic")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractRandomMasks(AbstractMethod):
    """Masks of random cells, weighted by the scores behind them."""

    n_masks: int = 4000
    cells: int = 7
    keep: float = 0.5
    baseline: Baseline = 0.0
    centred: bool = False
    sampler: Literal["bernoulli", "stratified", "antithetic"] = "bernoulli"
    seed: int = 0
    tolerance: float = 0.1

    @property
    def signed(self) -> bool:
        """Where the mean is subtracted: else a map is a mean of scores, and 0 is nothing special."""
        return self.centred

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """Inputs behind masks, scored; the own grid is the input's."""
        ids = torch.zeros(len(inputs), dtype=torch.long) if sample_ids is None else sample_ids.cpu()
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess)
        draw = GridDraws(tuple(inputs.shape[2:]), self.cells, self.keep, self.sampler, self.seed)
        variants = BehindGrids(inputs, baseline, self.n_masks, draw, ids)
        ends = marks(self.engine.settings.mode, _FIRST * draw.together, self.n_masks)
        enough = self.tolerance * (1 if self.centred else _AS_A_WHOLE)
        means = GridMeans(variants, centred=self.centred, marks=ends, enough=enough)
        levels = functools.partial(level_by_level, means) if len(ends) > 1 else None
        return Recipe(variants=variants, reduce=means, levels=levels)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=1 + self.n_masks)

    def _check(self) -> None:
        check_count(self.n_masks, "n_masks")
        check_count(self.cells, "cells")
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float):
            raise TypeError(f"`keep` came as {self.keep!r}; give a probability, above 0 and below 1")
        if not 0 < self.keep < 1:
            raise ValueError(f"`keep` came as {self.keep}; give a probability above 0 and below 1")
        check_baseline(self.baseline)
        check_seed(self.seed)
        check_tolerance(self.tolerance)
        if not isinstance(self.centred, bool):
            raise TypeError(f"`centred` came as {self.centred!r}; give True or False")
        self._check_sampler()

    def _check_sampler(self) -> None:
        check_choice(self.sampler, "sampler", SAMPLERS)
        if self.sampler == "antithetic" and self.keep != 0.5:
            raise ValueError(
                f'`sampler` "antithetic" keeps what the mask before did not, and `keep` is {self.keep}; '
                "give `keep=0.5` or another sampler"
            )


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RISE(AbstractRandomMasks):
    r"""Randomised input sampling (Petsiuk et al. 2018, arXiv:1806.07421, section 3).

    .. math:: A = \frac{1}{n\,p} \sum_{j=1}^{n} f\bigl(b + m_j \odot (x - b)\bigr)\, m_j

    A mask :math:`m_j` is a grid of cells, each kept with probability p, enlarged by bilinear interpolation to one cell
    more than covers the input, and cut out at a random shift of less than a cell. A at a position estimates the mean
    score of those inputs in which the position is seen.

    As in the authors' program (scikit-image's `resize`, mirrored at the border), with which it shares every number but
    the random ones. There b is 0 in the model's space, the masks are made before and the same for every input. Here
    they are never stored: draws are keyed by (seed, sample id, draw), inputs with equal ids get equal masks, and masks
    of one shift are added up as grids before they are enlarged.

    Values are in units of the score: the mean score where a position is seen, negative only where scores are, and so
    never of probabilities. With `centred=True` the map is signed, positive where the score is higher than the mean of
    all when a position is seen. They do not sum to anything.

    Args:
        model: a module, a callable or an `Engine`.
        n_masks: n.
        cells: of the grid along each axis.
        keep: p, the probability with which a cell is kept.
        baseline: what is seen where a mask is 0: a number or one per channel in the model's space (0.0 is the mean
            colour after ImageNet normalisation), a tensor that broadcasts to the inputs, "image_mean", "blur", "black"
            or "white".
        centred: subtract the mean of the n scores from each of them. The paper does not. Up to a constant the map that
            is estimated is the same; where scores are far from 0 it takes far fewer masks, because how often a position
            happened to be seen then no longer counts.
        sampler: "bernoulli": cells and masks are independent, as in the paper. "stratified": how many cells a mask
            keeps is spread evenly over its distribution instead of drawn. "antithetic": every second mask keeps the
            cells that the one before does not, at the same shift, so that every position is seen in half of all masks;
            for `keep=0.5` only. The three estimate the same mean. Opposites save what centring saves: with both, the
            second mask of a pair says little new.
        seed: of the draws.
        tolerance: where the engine's mode is "turbo": no more masks are asked about once the standard error of every
            target's map, in its L2 norm, is at most this share of the map's. Looked at after 160 masks (320 antithetic
            ones) and each time their number has doubled; `n_masks` stays the most. A map that is not centred is large
            everywhere, so that the same share of it is a larger error of what tells positions apart; and as it errs
            mostly as a whole, it ends at three quarters of the tolerance.

    Returns (`attribute`): (N, 1, *S). Calling the method also gives `standard_error` of that shape, of the map as an
    estimate of the mean over all masks: from the means of 20 groups of masks. None below 40 masks (80 antithetic ones),
    or where all maps of the call have more than 2^25 elements.

    Cost: 1 + n masks at most, in model rows forward per input; K targets share them. Memory grows by a score per mask
    and target.

    Raises:
        ValueError: a baseline that does not fit the inputs; before the model runs.
    """


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DRISE(AbstractRandomMasks):
    r"""RISE for detectors (Petsiuk et al. 2021, arXiv:2006.03204, section 3).

    .. math:: A = \frac{1}{n\,p} \sum_{j=1}^{n} s\bigl(t, D(b + m_j \odot (x - b))\bigr)\, m_j

    where D finds objects and s is how well the best of them matches the object t that is explained: with
    `xf.targets.detection(boxes, labels)` as the target the largest of overlap (intersection over union) times the
    score of the class, over all that is found. Masks are those of `RISE`, of smaller cells.

    .. code-block:: python

        xf.DRISE(detector).attribute(images, xf.targets.detection(boxes, labels))

    The paper multiplies by the cosine of the class probabilities as well, and by an objectness where a detector has
    one; most detectors give neither away, and a score of the class alone stands for both here. It takes 5000 masks and
    does not divide by n p, which only scales the map. Any other target may be given, of detectors and other models.

    Values are in units of the target, for a detection from 0 to 1: the mean match where a position is seen. With
    `centred=True` the map is signed. They do not sum to anything.

    Args:
        model: a module, a callable or an `Engine`; torchvision's detectors return what the target reads.
        n_masks, cells, keep, baseline, centred, sampler, seed, tolerance: as for `RISE`.

    Returns (`attribute`): (N, 1, *S); calling the method also gives `standard_error`, as for `RISE`.

    Cost: 1 + n masks at most, in model rows forward per input. Memory grows by a score per mask and target.

    Raises:
        ValueError: a baseline that does not fit the inputs; before the model runs.
    """

    cells: int = 16

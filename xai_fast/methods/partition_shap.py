"""Partition SHAP: Owen values of an image's halves, quarters and so on, down to where the budget ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.reducers.partition import OwenMaps
from xai_fast.engine.samplers.partition import splits_of
from xai_fast.images.baselines import Baseline, check_baseline, resolve_baseline

from .base import AbstractMethod, Resolution
from .checks import check_count, check_seed
from .gradient import in_single


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PartitionShap(AbstractMethod):
    r"""Owen values over a hierarchy of boxes (Owen 1977; of a model's scores Lundberg and Lee 2017, arXiv:1705.07874).

    .. math:: A_i = \mathrm{E}_\pi \bigl[ f(x_{S_\pi(i) \cup i}) - f(x_{S_\pi(i)}) \bigr]

    where x_S is the input at the positions S and the baseline elsewhere, S_π(i) is what precedes position i in an order
    π, and π runs over the orders that the hierarchy allows: at every level either half of a box comes as a whole before
    the other. A box is halved along its longest axis (the first of equals), down to positions, whose channels stay
    together. With enough evaluations this is exact. With fewer, boxes are split best first, by the largest absolute
    value over the targets of what a box adds to its context times the context's weight; the value of a box that was not
    split is divided evenly among its positions.

    As shap's `PartitionExplainer` with `maskers.Image` and no fixed context. Unlike it, channels are not told apart;
    boxes that add the same come in an order drawn from the seed; several boxes are split at once (one for every 60
    evaluations of the budget, fewer at either end), whatever the batch size; and a half in which the input already is
    the baseline is neither run nor given a value.

    Values are in units of the score, positive where showing a position raises it, and sum to f(x) − f(baseline) at any
    budget, up to rounding.

    Args:
        model: a module, a callable or an `Engine`.
        n_evaluations: model rows per input at the most, the input's and the baseline's own among them; at least 2. A
            split takes two.
        baseline: what is not shown: a number or one per channel in the model's space, a tensor that broadcasts to the
            inputs, "image_mean", "blur" (Gaussian, sigma 5 % of the short side), "black" or "white".
        seed: of the order among boxes that add the same.

    Returns (`attribute`): (N, 1, *S).

    Cost: n_evaluations rows forward per input, less one where that is odd, and no more than the hierarchy has (about
    the square of the positions); K targets share the rows. Memory: the map and a few numbers per evaluation. A GPU is
    waited for once per wave of boxes, whose scores say which ones are halved next.

    Raises:
        ValueError: a baseline that does not fit; before the model runs.
    """

    n_evaluations: int = 500
    baseline: Baseline = "blur"
    seed: int = 0

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The baselines, and then boxes as the scores lead to them; the own grid is the input's."""
        inputs = in_single(inputs)
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess)
        splits = self._splits(inputs.shape[2:])
        owen = OwenMaps(inputs, baseline, splits=splits, seed=self.seed, keys=sample_ids)
        return Recipe(owen, then=owen.then)

    def _splits(self, space: tuple[int, ...]) -> int:
        return min((self.n_evaluations - 2) // 2, splits_of(space))

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=2 + 2 * self._splits(shape[1:]))

    def _check(self) -> None:
        check_count(self.n_evaluations, "n_evaluations", 2)
        check_baseline(self.baseline)
        check_seed(self.seed)

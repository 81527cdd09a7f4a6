"""Kernel SHAP: Shapley values of segments by weighted regression over coalitions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final, get_args

from xai_fast.engine import Cost
from xai_fast.engine.estimators.shapley import ShapleyRegression
from xai_fast.engine.estimators.shapley_draws import Sampler, WeightedDraws, weighted_draws
from xai_fast.engine.reducers.coalitions import Stage
from xai_fast.engine.reducers.levels import marks
from xai_fast.engine.samplers.coalitions import Table
from xai_fast.images.segments import most_segments

from .checks import check_choice, check_count, check_tolerance
from .coalition import AbstractCoalitionMethod, Drawn, all_coalitions, table_of

# Coalitions after which errors are looked at first: in all, and per segment.
_FIRST, _PER_SEGMENT = 64, 4


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KernelShap(AbstractCoalitionMethod):
    r"""Shapley values of segments by weighted least squares (Lundberg and Lee 2017, arXiv:1705.07874, theorem 2).

    .. math:: \phi = \arg\min_\phi \sum_{z} \mu(|z|)\,\bigl(f(x_z) - f(x_\emptyset) - z \cdot \phi\bigr)^2
              \quad\text{with}\quad \textstyle\sum_i \phi_i = f(x) - f(x_\emptyset), \qquad
              \mu(s) = \frac{n - 1}{\binom{n}{s}\, s\, (n - s)}

    over coalitions z of the n segments, x_z showing those in z and the baseline elsewhere. The sum is a constraint,
    kept by projection, not two rows with a large weight as in captum. Where `n_samples` covers all 2^n coalitions (and
    no `tolerance` ends it before) the values are exact and their standard error is 0; else it is that of a sandwich
    estimator over pairs.

    Values are in units of the score. Every position carries its segment's value, not divided by its size; positions
    without a segment are never hidden and have 0.

    Args:
        model: a module, a callable or an `Engine`.
        segments: a label map, LongTensor (*S,) for every input or (N, *S), below 0 where there is no segment; a name:
            "slic", "quickshift", "felzenszwalb" (scikit-image's) or "grid"; or a function from a picture to a map.
        n_samples: coalitions per input, the empty and the full one included; at least 2n, unless 2^n are fewer.
        baseline: what hidden segments become: a number or one per channel in the model's space, a tensor that
            broadcasts to the inputs, "image_mean", "segment_mean", "blur", "black" or "white".
        sampler: "paired" draws coalitions with their complements, sizes in proportion to μ, without repetition; sizes
            that the budget covers are enumerated. "leverage" does so with equally many of every size (Musco and Witter
            2025, arXiv:2410.01917). "kernel" draws each coalition on its own, as the paper and captum, unless
            `n_samples` covers all.
        seed: of the draws.
        tolerance: where the engine's mode is "turbo": no more coalitions are asked about once the standard error of
            every target's map, in its L2 norm, is at most this share of the map's. Looked at after 4n coalitions (64 at
            the least) and each time their number has doubled; `n_samples` stays the most.

    Returns (`attribute`): (N, 1, *S).

    Cost: n_samples rows forward per input at most, the input itself included, for any number of targets.

    Raises:
        TypeError, ValueError: settings or segments that do not fit, `n_samples` below what the regression needs among
            them; before the model runs.
    """

    n_samples: int = 2048
    sampler: Sampler = "paired"
    tolerance: float = 0.1

    def drawn(self, games: Sequence[tuple[int, int]]) -> Drawn:
        """Coalitions with the weights that they stand for."""

        @functools.cache
        def of(count: int, key: int) -> list[WeightedDraws]:
            most = min(self.n_samples, all_coalitions(count))
            budgets = marks(self.engine.settings.mode, max(_FIRST, _PER_SEGMENT * count), most)
            return weighted_draws(count, budgets, self.sampler, self.seed, key)

        every = [of(*game) for game in games]
        stages = [[Stage(len(draws.shown), ShapleyRegression(draws)) for draws in some] for some in every]
        return Drawn(Table(*table_of([some[-1].shown for some in every])), stages, self.tolerance)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=min(self.n_samples, all_coalitions(most_segments(self.segments, shape))))

    def _check(self) -> None:
        super()._check()
        check_count(self.n_samples, "n_samples", 2)
        check_choice(self.sampler, "sampler", get_args(Sampler))
        check_tolerance(self.tolerance)

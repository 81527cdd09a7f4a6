"""LIME on images: a linear model of what segments say, fitted around the input."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from xai_fast.engine import Cost
from xai_fast.engine.estimators.surrogate import Surrogate
from xai_fast.engine.reducers.coalitions import Stage
from xai_fast.engine.samplers.coalitions import Table
from xai_fast.engine.samplers.subsets import binomial, coins, every_subset, opposite_ends
from xai_fast.images.baselines import Baseline
from xai_fast.images.segments import Segments

from .checks import check_choice, check_count, check_positive
from .coalition import AbstractCoalitionMethod, Drawn, all_coalitions, table_of

ALPHAS = {"ridge": 1.0, "lasso": 0.01}  # what lime and captum take


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Lime(AbstractCoalitionMethod):
    r"""LIME: the linear model of segments that is closest to the score around the input.

    Ribeiro et al. 2016, arXiv:1602.04938.

    .. math:: \min_{a, b}\ \sum_z \pi(z)\,\bigl(f(x_z) - a - z \cdot b\bigr)^2 + \alpha \lVert b \rVert^2, \qquad
              \pi(z) = \exp\Bigl(-\frac{D(z)^2}{2\,w^2}\Bigr), \quad D(z) = 1 - \sqrt{|z| / n}

    over random coalitions z of the n segments, x_z showing those in z and the baseline elsewhere; D is the cosine
    distance to showing all. A segment's value is its coefficient b. These are the numbers of the library lime 0.2 on
    the same coalitions (the first of which is the input itself), with labels from 0 on without gaps.

    Values are in units of the score, positive where showing a segment raises it. They do not sum to anything. Every
    position carries its segment's value; positions without a segment are never hidden and have 0. The explanation's
    `fit` is the weighted R² of the linear model: where it is low, the values say little.

    Args:
        model: a module, a callable or an `Engine`; `target` is explained as the model gives it. The library explains
            probabilities, so give a model that ends in softmax, or `target=xf.targets.probability(...)`, for its
            numbers.
        segments: a name: "quickshift", "slic", "felzenszwalb" (scikit-image's, on the picture that the model sees) or
            "grid"; a label map, LongTensor (*S,) for every input or (N, *S), below 0 where there is no segment; or a
            function from a picture, an array (*S, C) in [0, 1], to a label map.
        n_samples: coalitions per input.
        baseline: what hidden segments become: "segment_mean" (each segment's own mean colour), a number or one per
            channel in the model's space, a tensor that broadcasts to the inputs, "image_mean", "blur", "black" or
            "white".
        kernel_width: w.
        surrogate: "ridge", or "lasso", which minimises Σ π (...)² / (2 Σ π) + α |b|₁ as scikit-learn's.
        alpha: α; None: 1.0 for ridge, 0.01 for lasso.
        top_k: only so many segments get a value: those that the lasso's path keeps, as the paper's K-LASSO, and the
            surrogate is fitted anew on them, for every target on its own. None takes all.
        sampler: "bernoulli" shows each segment with probability 1/2 and weighs by π. "glime" draws coalitions in
            proportion to π and weighs none (Tan et al. 2023, arXiv:2311.15722), with α over the mean of π: the same
            limit. Two things that are not in the paper leave that limit as it is and lessen the noise: draws come in
            nearly opposite pairs, and what pairs of segments do together is estimated beside the linear model and
            replaced by the linear function that it comes to under the known distribution of the draws. Where all 2^n
            coalitions are at most `n_samples`, each is asked about once and weighs its π, which is the limit itself.
            The penalty stays that of so many samples.
        seed: of the draws.

    Returns (`attribute`): (N, 1, *S).

    Cost: n_samples rows forward per input at most ("glime": one more), for any number of targets.

    Raises:
        TypeError, ValueError: settings or segments that do not fit; before the model runs.
    """

    segments: Segments = "quickshift"
    n_samples: int = 1000
    baseline: Baseline = "segment_mean"
    kernel_width: float = 0.25
    surrogate: Literal["ridge", "lasso"] = "ridge"
    alpha: float | None = None
    top_k: int | None = None
    sampler: Literal["bernoulli", "glime"] = "bernoulli"

    def drawn(self, games: Sequence[tuple[int, int]]) -> Drawn:
        """Coalitions with their weights."""
        draw = functools.cache(self._glime if self.sampler == "glime" else self._bernoulli)
        every = [draw(*game) for game in games]
        draws = Table(*table_of([estimator.shown for estimator in every]))
        return Drawn(draws, [[Stage(len(estimator.shown), estimator)] for estimator in every])

    def _bernoulli(self, count: int, key: int) -> Surrogate:
        shown = coins(self.seed, key, torch.arange(self.n_samples), count)
        shown[0] = True
        return self._surrogate(shown, proximity(shown.sum(1), count, self.kernel_width), self._alpha)

    def _glime(self, count: int, key: int) -> Surrogate:
        sizes = torch.arange(count + 1)
        chances = binomial(count, sizes) * proximity(sizes, count, self.kernel_width)
        # The lasso's loss is a mean already.
        alpha = self._alpha / float(chances.sum()) if self.surrogate == "ridge" else self._alpha
        if all_coalitions(count) <= self.n_samples:
            shown = every_subset(count)
            weights = proximity(shown.sum(1), count, self.kernel_width)
            return self._surrogate(shown, weights * (self.n_samples / weights.sum()), alpha)
        shown = opposite_ends(self.seed, key, self.n_samples, chances)
        return self._surrogate(shown, torch.ones(len(shown), dtype=torch.float64), alpha, chances)

    def _surrogate(self, shown: Tensor, weights: Tensor, alpha: float, chances: Tensor | None = None) -> Surrogate:
        return Surrogate(shown, weights, self.surrogate, alpha, self.top_k, chances)

    @property
    def _alpha(self) -> float:
        return ALPHAS[self.surrogate] if self.alpha is None else float(self.alpha)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        return Cost(forwards=self.n_samples + (self.sampler == "glime"))

    def _check(self) -> None:
        super()._check()
        check_count(self.n_samples, "n_samples", 2)
        check_positive(self.kernel_width, "kernel_width")
        check_choice(self.surrogate, "surrogate", tuple(ALPHAS))
        if self.alpha is not None:
            check_positive(self.alpha, "alpha", zero=True)
        if self.top_k is not None:
            check_count(self.top_k, "top_k")
        check_choice(self.sampler, "sampler", ("bernoulli", "glime"))


def proximity(shown: Tensor, count: int, width: float) -> Tensor:
    """π (float64) of coalitions that show so many of the segments."""
    distance = 1 - (shown.double() / max(count, 1)).sqrt()
    return (-(distance**2) / (2 * width**2)).exp()

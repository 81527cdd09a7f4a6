"""Linear surrogates of a score over coalitions: weighted ridge or lasso, on all segments or on a selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from xai_fast.engine.reducers.coalitions import Values
from xai_fast.engine.samplers.subsets import MOST_PAIRED
from xai_fast.ops import surrogate_normal

from .interactions import without_pairs

_APART = 1e-12  # how far segments that say the same are moved apart for the lasso, of the most that one says


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The linear model with an intercept that fits the scores of the draws; a segment's value is its coefficient.

    Args:
        shown: BoolTensor (D, S): what each draw shows.
        weights: (D,) how much each draw counts.
        kind: "ridge" minimises Σ w (y − ŷ)² + α |b|², "lasso" Σ w (y − ŷ)² / (2 Σ w) + α |b|₁.
        alpha: α.
        top_k: the number of coefficients: the last ones that the lasso's path keeps to so many, fitted anew; None
            takes all.
        chances: (S + 1,) of the sizes by which the draws were made, which weigh the same: what pairs of segments do is
            then told from what single ones do (`interactions`). None fits the scores as they are.
    """

    shown: Tensor
    weights: Tensor
    kind: Literal["ridge", "lasso"]
    alpha: float
    top_k: int | None = None
    chances: Tensor | None = None

    def __post_init__(self) -> None:
        count = self.shown.shape[1]
        if count > MOST_PAIRED and not self._few_draws:
            raise ValueError(
                f"`segments` are {count}; the lasso, `top_k`, `alpha=0` and more draws than segments solve for all "
                f"pairs of them (or of words) and take at most {MOST_PAIRED}: give fewer, or ridge without `top_k`"
            )

    @property
    def _few_draws(self) -> bool:
        """Whether a system of the size of the draws gives the same."""
        return self.top_k is None and self.kind == "ridge" and self.alpha > 0 and self.shown.shape[1] > len(self.shown)

    def __call__(self, scores: Tensor, clean: Tensor) -> Values:
        """One set of normal equations for all targets; ridge without a selection factors it once."""
        if self._few_draws:
            return self._by_draws(scores)
        covariance, cross, total, spread = self._centred(scores)
        wanted = cross
        if self.chances is not None:
            wanted = self._centred(without_pairs(self.shown, scores, self.chances))[1]
        if self.top_k is None and self.kind == "ridge":
            coefficients = _ridge(covariance, wanted, self.alpha)
        else:
            columns = [self._selected(covariance / total, one / total, total) for one in wanted.T]
            coefficients = torch.stack(columns, dim=1) if columns else torch.zeros_like(cross)
        explained = 2 * (coefficients * cross).sum(0) - (coefficients * (covariance @ coefficients)).sum(0)
        fit = torch.where(spread > 0, explained / spread, 1.0)  # nothing to explain is explained
        return Values(coefficients.T, fit=fit)

    def _by_draws(self, scores: Tensor) -> Values:
        """The same ridge by a system of the size of the draws, where they are fewer than the segments."""
        total, roots = self.weights.sum(), self.weights.sqrt()[:, None]
        mean = (self.weights @ scores) / total
        wanted = roots * (scores - mean)
        shown = self.shown.double()
        design = roots * (shown - (self.weights @ shown) / total)
        gram = design @ design.T + self.alpha * torch.eye(len(design), dtype=torch.float64)
        coefficients = design.T @ torch.cholesky_solve(wanted, torch.linalg.cholesky(gram))
        spread = wanted.square().sum(0)
        left = (wanted - design @ coefficients).square().sum(0)
        return Values(coefficients.T, fit=torch.where(spread > 0, 1 - left / spread, 1.0))

    def _centred(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums over the draws about their weighted means: (S, S), (S, K), and of weights () and squared scores (K,)."""
        segments = self.shown.shape[1] + 1
        gram = torch.zeros(segments, segments, dtype=torch.float64)
        moment = torch.zeros(segments, scores.shape[1], dtype=torch.float64)
        # About the mean first: what scores have in common would only cost digits.
        scores = scores - (self.weights @ scores) / self.weights.sum()
        surrogate_normal(self.shown, self.weights, scores, gram, moment)
        total, mean = gram[0, 0], gram[0, 1:] / gram[0, 0]
        covariance = gram[1:, 1:] - total * torch.outer(mean, mean)
        cross = moment[1:] - mean[:, None] * moment[0]
        return covariance, cross, total, self.weights @ scores.square()

    def _selected(self, covariance: Tensor, cross: Tensor, total: Tensor) -> Tensor:
        """The coefficients (S,) of one target, given (S, S) and (S,) per unit of weight."""
        coefficients = torch.zeros_like(cross)
        chosen = torch.arange(len(cross))
        if self.top_k is not None and self.top_k < len(cross):
            path = _lasso_path(covariance, cross, 0.0, max(500, 4 * self.top_k))
            chosen = next(kept for step in path.T.flip(0) if len(kept := step.nonzero()[:, 0]) <= self.top_k)
        covariance, cross = covariance[chosen][:, chosen], cross[chosen]
        if len(chosen) == 0:
            return coefficients
        if self.kind == "lasso":
            coefficients[chosen] = _lasso_path(covariance, cross, self.alpha, 20 * len(cross) + 100)[:, -1]
        else:
            coefficients[chosen] = _ridge(covariance, cross[:, None], self.alpha / float(total))[:, 0]
        return coefficients


def _ridge(covariance: Tensor, cross: Tensor, alpha: float) -> Tensor:
    """(S, K); the shortest solution where there are several, which only α = 0 allows."""
    if not len(cross):
        return cross.clone()
    regular = covariance + alpha * torch.eye(len(cross), dtype=torch.float64)
    if alpha > 0:
        return torch.cholesky_solve(cross, torch.linalg.cholesky(regular))
    return torch.linalg.lstsq(regular, cross, driver="gelsd").solution


def _lasso_path(covariance: Tensor, cross: Tensor, alpha: float, most: int) -> Tensor:
    """(S, steps): the lasso's coefficients wherever one comes or goes, from none down to α; at most so many steps."""
    from sklearn.linear_model import lars_path_gram  # slow to import

    # It lets one coefficient come or go at a time, and loses its way where segments tie.
    cross = cross + _APART * cross.abs().max() * torch.arange(len(cross), dtype=cross.dtype) if len(cross) else cross
    _, _, path = lars_path_gram(
        cross.numpy(),
        covariance.numpy(),
        n_samples=1,
        max_iter=most,
        alpha_min=alpha,  # pyright: ignore[reportArgumentType] - typed after its default, which is 0
        method="lasso",
    )
    return torch.from_numpy(path)

"""Shapley values from the scores of coalitions: by weighted regression, or as means along random orders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.engine.reducers.coalitions import Values

from .shapley_draws import WeightedDraws


@dataclass(frozen=True, eq=False)
class ShapleyRegression:
    """The weighted least squares fit whose values sum to f(x) less the score of the empty coalition.

    With 1 the vector of ones and P the projection orthogonal to it: φ = 1 Δ/n + (P Z'WZ P)⁺ P Z'W (y − Z 1 Δ/n).
    Errors are those of the sandwich estimator over what was drawn together, stratum by stratum.
    """

    draws: WeightedDraws

    def __call__(self, scores: Tensor, clean: Tensor) -> Values:
        """Of draw 0, the empty coalition, and the others."""
        n, empty = self.draws.shown.shape[1], scores[0]
        total = clean - empty
        if n < 2:
            values = total[:, None].expand(-1, n)
            return Values(values, torch.zeros_like(values), values.sum(1) - total if n else torch.zeros_like(total))
        shown, weights = self.draws.shown[1:].double(), self.draws.weights[1:]
        centred = shown - shown.mean(1, keepdim=True)  # Z P
        # With the values' mean set aside, what is left is orthogonal to 1.
        rest = scores[1:] - empty - shown.sum(1, keepdim=True) * (total / n)
        normal = (centred * weights[:, None]).T @ centred
        inverse = torch.linalg.pinv(normal, hermitian=True, rtol=1e-12)
        slopes = inverse @ (centred.T @ (weights[:, None] * rest))
        values = (slopes + total / n).T
        errors = self._errors(centred @ inverse, rest - centred @ slopes)
        return Values(values, errors, values.sum(1) - total)

    def _errors(self, leverage: Tensor, residuals: Tensor) -> Tensor:
        """(K, n) from what each draw contributes: a row of `leverage` (D, n) times its weight and residual (D, K)."""
        draws = self.draws
        groups, (_, n) = len(draws.strata), leverage.shape
        weighted = leverage * draws.weights[1:, None]
        _, strata = draws.strata.unique(return_inverse=True)
        sizes = torch.bincount(strata).double()
        # A stratum of several varies about its mean, which is no error; one alone may be all error.
        alone = (sizes < 2)[strata]
        factor = (1 - draws.shares) * torch.where(alone, 1.0, sizes[strata] / (sizes[strata] - 1).clamp_min(1))
        free = (draws.shares < 1).sum()
        factor = factor * (free / (free - n + 1).clamp_min(1))  # what the fit itself took from the residuals
        errors = []
        for residual in residuals.T:
            each = weighted.new_zeros(groups, n).index_add_(0, draws.groups[1:], weighted * residual[:, None])
            means = each.new_zeros(len(sizes), n).index_add_(0, strata, each) / sizes[:, None]
            each = each - torch.where(alone[:, None], 0.0, means[strata])
            errors.append((factor[:, None] * each.square()).sum(0).sqrt())
        return torch.stack(errors)


@dataclass(frozen=True, eq=False)
class OrderMeans:
    """What each segment adds when its turn comes, averaged over orders.

    Args:
        orders: LongTensor (P, S): in which order the segments appear.
        together: how many successive orders were drawn together.
    """

    orders: Tensor
    together: int = 1

    def __call__(self, scores: Tensor, clean: Tensor) -> Values:
        """Draw 0 is the empty coalition, then come the P (S − 1) beginnings of the orders."""
        (count, n), width = self.orders.shape, len(clean)
        total = clean - scores[0]
        if n == 0:
            nothing = scores.new_zeros(width, 0)
            return Values(nothing, nothing, gap=torch.zeros_like(total))
        first, last = scores[0].expand(count, 1, -1), clean.expand(count, 1, -1)
        added = torch.cat([first, scores[1:].view(count, n - 1, width), last], dim=1).diff(dim=1)
        added = torch.empty_like(added).scatter_(1, self.orders[..., None].expand(-1, -1, width), added)
        units = added.unflatten(0, (-1, self.together)).mean(1)  # (U, S, K)
        values = units.mean(0).T
        errors = (units.var(0) / len(units)).sqrt().T if len(units) > 1 else None
        return Values(values, errors, values.sum(1) - total)

"""What pairs of segments do together, replaced in scores by its linear part: a linear fit to few draws then errs less.

Of a linear fit to random coalitions most of the error is what segments do together, seen by chance. The part that pairs
do is estimated along with the linear one; the linear function that is closest to it under the distribution of the
coalitions, which is known exactly, takes its place. So the limit stays, and the noise is that of larger groups and of
the estimate (a regression estimator of survey sampling: Cochran, Sampling Techniques, 1977, chapter 7).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MOST = 2048  # pairs, or draws, whichever are fewer: a system of so many is solved in seconds
_LARGEST = 1 << 24  # pairs times draws, of which a few tables of numbers are held
# Ridge penalties, in units of the mean eigenvalue; beside them, that all pairs do nothing.
_PENALTIES = (0.0, *(10.0**e for e in (-4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3)))
_LEFT = 0.05  # share of the degrees of freedom that an estimate has to leave
_NEGLIGIBLE = 1e-10  # share of the largest eigenvalue


def without_pairs(shown: Tensor, scores: Tensor, chances: Tensor) -> Tensor:
    """The scores, what pairs do in them replaced by the linear function of the segments that is closest to it.

    Pairs' effects are estimated by ridge beside a free linear part. For every score, penalties are averaged by how well
    they predict (generalised cross-validation, Golub, Heath and Wahba 1979), so that the result is smooth in the
    scores. Where draws are too few to tell anything, or pairs and draws too many, the scores come back as they are.

    Args:
        shown: BoolTensor (D, S): what each draw shows; of each size, all coalitions are equally likely.
        scores: (D, K) float64.
        chances: (S + 1,) of the sizes, in any unit.

    Returns:
        (D, K), up to a constant per score.
    """
    n_draws, count = shown.shape
    moments = _Moments.of(chances)
    n_pairs = count * (count - 1) // 2
    if min(n_draws, n_pairs) > _MOST or n_draws * n_pairs > _LARGEST:
        return scores
    if not n_pairs or n_draws <= count + 1 or moments.spread <= 1e-12:
        return scores
    first, second = torch.triu_indices(count, count, 1)
    members = shown.double()
    pairs = members[:, first] * members[:, second]
    linear = _basis(torch.cat([torch.ones(n_draws, 1, dtype=torch.float64), members], dim=1))
    free = n_draws - linear.shape[1]
    directions, squares = _principal(pairs - linear @ (linear.T @ pairs))
    if free < 2 or not len(squares):
        return scores
    wanted = scores - linear @ (linear.T @ scores)
    along = (directions.T @ (pairs.T @ wanted)) / squares.sqrt()[:, None]
    effects = directions @ (_shrinkage(along, squares, wanted.square().sum(0), free) * along / squares.sqrt()[:, None])
    table = effects.new_zeros(count, count, scores.shape[1])
    table[first, second] = table[second, first] = effects
    return scores - pairs @ effects + members @ moments.linear_part(table.sum(1), effects.sum(0))


@dataclass(frozen=True)
class _Moments:
    """Chances that one, two and three given segments are shown, of `count`."""

    one: float
    two: float
    three: float
    count: int

    @classmethod
    def of(cls, chances: Tensor) -> _Moments:
        size = torch.arange(len(chances), dtype=torch.float64)
        count, found, share = len(chances) - 1, [], chances.double() / chances.sum()
        for taken in range(3):
            share = share * (size - taken) / max(count - taken, 1)
            found.append(float(share.sum()))
        one, two, three = found
        return cls(one, two, three, count)

    @property
    def spread(self) -> float:
        """The variance of a segment, less its covariance with another."""
        return self.one - self.two

    def linear_part(self, of_segment: Tensor, total: Tensor) -> Tensor:
        """(S, K) coefficients: of what pairs do, per segment (S, K) that is in them and in total (K,)."""
        both, other = self.two - self.one * self.two, self.three - self.one * self.two
        cross = both * of_segment + other * (total - of_segment)
        mean = cross.mean(0)
        common = self.spread + self.count * (self.two - self.one**2)  # the variance of a size, over the segments
        return (cross - mean) / self.spread + (mean / common if common > 1e-12 else 0.0)


def _basis(columns: Tensor) -> Tensor:
    """Orthonormal columns that span the same."""
    basis, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return basis[:, sizes > 1e-8 * sizes[0]]


def _principal(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (P, R) among the columns and their squared sizes (R,), from the smaller of the two Gram matrices."""
    tall = pairs.shape[0] > pairs.shape[1]
    squares, vectors = torch.linalg.eigh(pairs.T @ pairs if tall else pairs @ pairs.T)
    kept = squares > _NEGLIGIBLE * squares[-1].clamp_min(1e-12)
    squares, vectors = squares[kept], vectors[:, kept]
    return (vectors if tall else pairs.T @ vectors / squares.sqrt()), squares


def _shrinkage(along: Tensor, squares: Tensor, whole: Tensor, free: int) -> Tensor:
    """(R, K): which share of what the scores have along each direction is believed.

    Args:
        along: (R, K).
        squares: (R,) of the directions.
        whole: (K,) sum of squares of what the linear part leaves.
        free: degrees of freedom that it leaves.
    """
    penalties = torch.tensor(_PENALTIES, dtype=torch.float64) * squares.mean()
    shares = torch.cat([squares / (squares + penalties[:, None]), torch.zeros(1, len(squares), dtype=torch.float64)])
    left = free - shares.sum(1)
    shares, left = shares[left >= _LEFT * free], left[left >= _LEFT * free]
    missed = (whole - along.square().sum(0)).clamp_min(0) + (1 - shares).square() @ along.square()
    error = missed.clamp_min(1e-24 * whole.max().clamp_min(1e-300)) / left[:, None] ** 2
    return shares.T @ torch.softmax(-0.5 * free * error.log(), dim=0)

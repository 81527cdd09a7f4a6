"""How softmax and its logarithm change from one point to another, as a multiplier of each score's own change.

The rescale rule (Shrikumar et al. 2017, arXiv:1704.02685, section 3.5.1) of what they are made of: log softmax is
z − log Σ exp z, whose exponentials and logarithm have the quotients (e^x − e^b) / (x − b) and (log x − log b) /
(x − b); softmax is the exponential of that. So multipliers times differences add up to what the outputs differ by, for
any number of classes. Where the points agree the quotients are the derivatives, without a threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor


def exponential(x: Tensor, b: Tensor) -> Tensor:
    """(e^x − e^b) / (x − b), e^x where they agree."""
    return torch.maximum(x, b).exp() * _decay(_distance(x, b))


def log_sum_exp(x: Tensor, b: Tensor, dim: int) -> Tensor:
    """Multipliers w, of the shape of `x`, with Σ w (x − b) = log Σ exp x − log Σ exp b, sums over `dim`."""
    of_x, of_b = x.logsumexp(dim, keepdim=True), b.logsumexp(dim, keepdim=True)
    # As exp(score − log of the sum), which no shift of the scores lets overflow.
    share = (torch.maximum(x, b) - torch.maximum(of_x, of_b)).exp()
    return share * _decay(_distance(x, b)) / _decay(_distance(of_x, of_b))


def log_softmax(x: Tensor, b: Tensor, dim: int, by_output: Tensor) -> Tensor:
    """Multipliers of the scores from those of log softmax over `dim`."""
    return by_output - log_sum_exp(x, b, dim) * by_output.sum(dim, keepdim=True)


def softmax(x: Tensor, b: Tensor, dim: int, by_output: Tensor) -> Tensor:
    """Multipliers of the scores from those of softmax over `dim`."""
    return log_softmax(x, b, dim, by_output * exponential(x.log_softmax(dim), b.log_softmax(dim)))


def _distance(x: Tensor, b: Tensor) -> Tensor:
    # Equal infinities, as a mask puts them into scores, are no distance apart.
    return torch.where(x == b, 0.0, (x - b).abs())


def _decay(t: Tensor) -> Tensor:
    """(1 − e^−t) / t for t ≥ 0, 1 at 0."""
    return torch.where(t == 0, 1.0, -torch.expm1(-t) / t)

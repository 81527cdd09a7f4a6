"""Random subsets of n things, keyed by (seed, sample id, draw): by coins, of given or drawn sizes, in random order."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from xai_fast.core.random import uniforms

MOST_PAIRED = 8192  # things of which a table of all pairs is kept: half a gigabyte
_AT_ONCE = 1 << 20  # random numbers held at a time


def coins(seed: int, key: int, draws: Tensor, n: int) -> Tensor:
    """BoolTensor (draws, n): each thing is in with probability 1/2."""
    return _filled(draws, n, lambda part: _numbers(seed, key, draws[part], n) < 0.5)


def of_sizes(seed: int, key: int, draws: Tensor, sizes: Tensor, n: int) -> Tensor:
    """BoolTensor (draws, n): a uniform subset of each size (draws,)."""
    return _filled(draws, n, lambda part: orders(seed, key, draws[part], n).argsort(1) < sizes[part, None])


def orders(seed: int, key: int, draws: Tensor, n: int) -> Tensor:
    """LongTensor (draws, n): a uniformly random order of the things per draw."""
    return _numbers(seed, key, draws, n + 1)[:, 1:].argsort(1)


def drawn_sizes(seed: int, key: int, draws: Tensor, chances: Tensor) -> Tensor:
    """LongTensor (draws,): numbers from 0 on, in proportion to `chances`; independent of the draws' orders."""
    return _chosen(_numbers(seed, key, draws, 1)[:, 0], chances)


def opposite_ends(seed: int, key: int, count: int, chances: Tensor) -> Tensor:
    """BoolTensor (count, n): subsets with sizes 0 ... n in proportion to `chances` (n + 1,), uniform given their size.

    Two at a time are drawn together: the sizes by a number and what it lacks to 1, the members from either end of one
    order. So two hold nearly opposite things where sizes are spread about the middle, which cancels most of what
    pairs of things, and larger even groups, do to the score.
    """
    n, pairs = len(chances) - 1, torch.arange((count + 1) // 2)
    size = _numbers(seed, key, pairs, 1)[:, 0]
    first, second = _chosen(size, chances), _chosen(1 - size, chances)

    def both(part: slice) -> Tensor:
        place = orders(seed, key, pairs[part], n).argsort(1)
        return torch.cat([place < first[part, None], place >= n - second[part, None]], dim=1)

    return _filled(pairs, 2 * n, both).view(-1, n)[:count]


def every_subset(n: int) -> Tensor:
    """BoolTensor (2^n, n): all of them, the empty one first and the full one last."""
    return (torch.arange(1 << n)[:, None] >> torch.arange(n)) % 2 == 1


def binomial(n: int, sizes: Tensor, chance: float = 0.5) -> Tensor:
    """P(k of n things are in), each with the same chance above 0 and below 1, for every k in `sizes`; float64."""
    k = sizes.double()
    ways = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return (ways + k * math.log(chance) + (n - k) * math.log1p(-chance)).exp()


def _chosen(uniform: Tensor, chances: Tensor) -> Tensor:
    edges = chances.double().cumsum(0)
    return torch.searchsorted(edges, uniform * edges[-1], right=True).clamp_max(len(chances) - 1)


def _numbers(seed: int, key: int, draws: Tensor, count: int) -> Tensor:
    return uniforms(seed, torch.full_like(draws, key), draws, count)


def _filled(draws: Tensor, n: int, subsets: Callable[[slice], Tensor]) -> Tensor:
    """The subsets of all draws, made of few draws at a time."""
    found, step = torch.empty(len(draws), n, dtype=torch.bool), max(1, _AT_ONCE // max(n, 1))
    for start in range(0, len(draws), step):
        found[start : start + step] = subsets(slice(start, start + step))
    return found

"""Random subsets of n things, keyed by (seed, sample id, draw): by coins, of given or drawn sizes, in random order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xai_fast.core.random import uniforms

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
    edges = chances.double().cumsum(0)
    drawn = _numbers(seed, key, draws, 1)[:, 0] * edges[-1]
    return torch.searchsorted(edges, drawn, right=True).clamp_max(len(chances) - 1)


def _numbers(seed: int, key: int, draws: Tensor, count: int) -> Tensor:
    return uniforms(seed, torch.full_like(draws, key), draws, count)


def _filled(draws: Tensor, n: int, subsets: Callable[[slice], Tensor]) -> Tensor:
    """The subsets of all draws, made of few draws at a time."""
    found, step = torch.empty(len(draws), n, dtype=torch.bool), max(1, _AT_ONCE // max(n, 1))
    for start in range(0, len(draws), step):
        found[start : start + step] = subsets(slice(start, start + step))
    return found

"""Coalitions for Shapley values by regression: which are asked about, and how much of all others each stands for.

In the regression a coalition of s among n players weighs μ(s) = (n − 1) / (C(n, s) s (n − s)) (Lundberg and Lee 2017,
theorem 2). Sizes whose coalitions the budget covers are enumerated. Of the others some are drawn, without repetition
and each with its complement, and weigh μ(s) over the probability of being drawn (Horvitz and Thompson 1952).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.random import uniforms

from .subsets import drawn_sizes, of_sizes, orders

Sampler = Literal["paired", "kernel", "leverage"]
_MANY = 1 << 60  # from here on it does not matter how many coalitions of a size there are
_ENUMERABLE = 4  # times the wanted number: so few coalitions are written down, of more some are drawn
_TRIES = 8  # draws set aside per wanted coalition; a quarter of them at most repeat another
_ROUNDING = 2**32 - 1  # the draw that rounds numbers per size


@dataclass(frozen=True, eq=False)
class WeightedDraws:
    """Draws of one input, with what the regression and its errors need.

    Attributes:
        shown: BoolTensor (D, n); the first draw is the empty coalition, and carries no weight.
        weights: (D,) μ over the probability of being drawn.
        groups: LongTensor (D,), by which draws came together: complements share one; -1 for the empty coalition.
        strata: LongTensor (groups,), the size by which groups were drawn.
        shares: (groups,) what share of the stratum's groups was drawn; 1 is all.
    """

    shown: Tensor
    weights: Tensor
    groups: Tensor
    strata: Tensor
    shares: Tensor


def weighted_draws(n: int, budgets: Sequence[int], sampler: Sampler, seed: int, key: int) -> list[WeightedDraws]:
    """For every budget at most so many coalitions of n players, the empty and the full one included.

    Those of a budget are the first of those of the next one, which weigh less.

    Args:
        n: players.
        budgets: ascending, each enough for a regression.
        sampler: as for `KernelShap`.
        seed: of the draws.
        key: the sample's id.

    Raises:
        ValueError: the last budget has fewer coalitions than the regression has unknowns.
    """
    budget = budgets[-1]
    if n < 2:
        nothing = torch.zeros(0, dtype=torch.float64)
        empty = torch.zeros(1, n, dtype=torch.bool)
        return [WeightedDraws(empty, torch.zeros(1).double(), torch.tensor([-1]), nothing.long(), nothing)]
    whole = n < 63 and 1 << n <= budget
    least = n + 1 if sampler == "kernel" else 2 * n
    if not whole and budget < least:
        raise ValueError(
            f"`n_samples` came as {budget}, and {n} segments need at least {min(least, 1 << min(n, 62))}; raise it, "
            "take fewer segments, or use ShapleySampling"
        )
    if sampler == "kernel" and not whole:
        return _independent(n, [budget - 2 for budget in budgets], seed, key)
    pairs = [(min(budget, 1 << min(n, 62)) - 2) // 2 for budget in budgets]
    return _pairs(n, pairs, sampler, seed, key)


def _independent(n: int, counts: Sequence[int], seed: int, key: int) -> list[WeightedDraws]:
    """Sizes in proportion to the kernel, subsets uniform, each draw on its own: all weigh the same."""
    draws, sizes = torch.arange(counts[-1]), torch.arange(1, n)
    size = drawn_sizes(seed, key, draws, 1 / (sizes * (n - sizes)).double()) + 1
    shown = torch.cat([torch.zeros(1, n, dtype=torch.bool), of_sizes(seed, key, draws, size, n)])
    weights = torch.ones(counts[-1] + 1, dtype=torch.float64)
    weights[0] = 0
    zeros, numbers = torch.zeros(counts[-1]), torch.arange(-1, counts[-1])
    return [
        WeightedDraws(shown[: c + 1], weights[: c + 1], numbers[: c + 1], zeros[:c].long(), zeros[:c].double())
        for c in counts
    ]


def _pairs(n: int, budgets: Sequence[int], sampler: Sampler, seed: int, key: int) -> list[WeightedDraws]:
    """So many pairs of coalitions and their complements; each budget's additions follow each other size by size."""
    allotted = [_allotted(n, budget, sampler, seed, key) for budget in budgets]
    halves, used = [], 0
    for size, (count, _) in enumerate(allotted[-1], start=1):
        halves.append(_some_of(n, size, count, seed, key, used))
        used += (_TRIES * count + 1) * (count > 0)
    shown, strata, made = [torch.zeros(0, n, dtype=torch.bool)], [torch.zeros(0, dtype=torch.long)], []
    before = [0] * len(halves)
    for sizes in allotted:
        # Rounding may allot one more to a smaller budget.
        counts = [min(max(c, b), len(h)) for (c, _), b, h in zip(sizes, before, halves, strict=True)]
        for size, (begin, end) in enumerate(zip(before, counts, strict=True), start=1):
            shown.append(halves[size - 1][begin:end])
            strata.append(torch.full((end - begin,), size))
        before = counts
        made.append(_weighted(n, torch.cat(shown), torch.cat(strata), counts, [expected for _, expected in sizes]))
    return made


def _weighted(n: int, half: Tensor, strata: Tensor, counts: Sequence[int], expected: Sequence[float]) -> WeightedDraws:
    """The pairs (P, n) of each size, of which so many came and so many were expected, with what they stand for."""
    sizes = range(1, len(counts) + 1)
    # Where one is sure to come, what came stands for the whole size; else what comes now and then does on average.
    stands = [count if mean >= 1 else mean for count, mean in zip(counts, expected, strict=True)]
    weights, shares = (
        torch.tensor([0.0, *values], dtype=torch.float64)[strata]
        for values in (
            [_mass(n, size) / (2 * max(stand, 1e-300)) for size, stand in zip(sizes, stands, strict=True)],
            [stand / min(_pairs_of(n, size), _MANY) for size, stand in zip(sizes, stands, strict=True)],
        )
    )
    return WeightedDraws(
        shown=torch.cat([half.new_zeros(1, n), torch.stack([half, ~half], dim=1).flatten(0, 1)]),
        weights=torch.cat([weights.new_zeros(1), weights.repeat_interleave(2)]),
        groups=torch.cat([strata.new_full((1,), -1), torch.arange(len(half)).repeat_interleave(2)]),
        strata=strata,
        shares=shares,
    )


def _mass(n: int, size: int) -> float:
    """What all coalitions of a size and of its complements' size weigh together."""
    return (n - 1) / (size * (n - size)) * (1 if 2 * size == n else 2)


def _pairs_of(n: int, size: int) -> int:
    """How many coalitions with their complements there are, of a size up to n / 2."""
    return math.comb(n, size) // (2 if 2 * size == n else 1)


def _allotted(n: int, budget: int, sampler: Sampler, seed: int, key: int) -> list[tuple[int, float]]:
    """How many pairs of each size 1 ... n / 2 are drawn, and how many are expected before rounding.

    By the kernel, or equally many of each size: leverage scores are 1 / C(n, s) for every coalition (Musco and Witter
    2025, arXiv:2410.01917, lemma 3.2). What exceeds a size is left to the others.
    """
    sizes = range(1, n // 2 + 1)
    wanted = [(1.0 if 2 * s != n else 0.5) if sampler == "leverage" else _mass(n, s) for s in sizes]
    caps = [min(_pairs_of(n, s), _MANY) for s in sizes]
    expected, open_, left = [0.0] * len(caps), list(range(len(caps))), float(budget)
    while open_:
        rate = left / sum(wanted[i] for i in open_)
        full = [i for i in open_ if rate * wanted[i] >= caps[i]]
        for i in full:
            expected[i] = float(caps[i])
            left -= caps[i]
        if not full:
            for i in open_:
                expected[i] = rate * wanted[i]
        open_ = [i for i in open_ if i not in full] if full else []
    # One random offset rounds all of them, so that they add up to the budget and each is right on average.
    offset = float(uniforms(seed, torch.tensor([key]), torch.tensor([_ROUNDING]), 1))
    edges = [math.floor(edge + offset + 1e-9) for edge in itertools.accumulate(expected, initial=0.0)]
    return list(zip([b - a for a, b in itertools.pairwise(edges)], expected, strict=True))


def _some_of(n: int, size: int, count: int, seed: int, key: int, used: int) -> Tensor:
    """BoolTensor (count, n): different coalitions of a size in random order, no two of them complements."""
    total = _pairs_of(n, size)
    if total <= _ENUMERABLE * count:
        every = _every(n, size)[:total]
        return every[orders(seed, key, torch.tensor([used]), total)[0, :count]]
    found = torch.zeros(0, n, dtype=torch.bool)
    while len(found) < count:
        draws = torch.arange(used, used + count - len(found))
        used += len(draws)
        fresh = of_sizes(seed, key, draws, torch.full((len(draws),), size), n)
        if 2 * size == n:
            fresh ^= ~fresh[:, :1]  # the one of the two that holds the first player
        found = torch.cat([found, fresh])
        _, first = np.unique(np.packbits(found.numpy(), axis=1), axis=0, return_index=True)
        found = found[torch.from_numpy(np.sort(first))]
    return found


def _every(n: int, size: int) -> Tensor:
    """All coalitions of a size, those that hold the first player first."""
    members = torch.tensor(list(itertools.combinations(range(n), size)))
    return torch.zeros(len(members), n, dtype=torch.bool).scatter_(1, members, True)

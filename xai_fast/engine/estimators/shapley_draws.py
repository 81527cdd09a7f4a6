"""Coalitions for Shapley values by regression: which are asked about, and how much of all others each stands for.

In the regression a coalition of s among n players weighs μ(s) = (n − 1) / (C(n, s) s (n − s)) (Lundberg and Lee 2017,
theorem 2). Sizes whose coalitions the budget covers are enumerated. Of the others some are drawn, without repetition
and each with its complement, and weigh μ(s) over the probability of being drawn (Horvitz and Thompson 1952).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.random import uniforms
from xai_fast.engine.samplers.subsets import MOST_PAIRED, drawn_sizes, of_sizes, orders

Sampler = Literal["paired", "kernel", "leverage"]
_MANY = 1 << 60  # from here on it does not matter how many coalitions of a size there are
_ENUMERABLE = 4  # times the wanted number: so few coalitions are written down, of more some are drawn
_TRIES = 8  # draws set aside per wanted coalition; a quarter of them at most repeat another
_ROUNDING = 2**32 - 1  # the draw that rounds numbers per size


class Players(NamedTuple):
    """What messages call the players.

    Attributes:
        name: of several.
        came: how the argument that they come from is told, with a place for their number.
        otherwise: what to do where there are too many.
    """

    name: str
    came: str
    otherwise: str


SEGMENTS = Players("segments", "`segments` are {}", "take fewer segments, or use ShapleySampling")


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


def weighted_draws(
    n: int, budgets: Sequence[int], sampler: Sampler, seed: int, key: int, *, players: Players = SEGMENTS
) -> list[WeightedDraws]:
    """Coalitions of n players for every budget, the empty and the full one included in it.

    Those of a budget are the first of those of the next one. The last is never exceeded; one before it may be, by what
    rounding allots to one size or another.

    Args:
        n: players.
        budgets: ascending.
        sampler: as for `KernelShap`.
        seed: of the draws.
        key: the sample's id.
        players: what messages call them.

    Raises:
        ValueError: the last budget has fewer coalitions than the regression has unknowns, or there are too many players
            for a table of all their pairs.
    """
    if n > MOST_PAIRED:
        raise ValueError(
            f"{players.came.format(n)}; the regression solves for all pairs of them and takes at most {MOST_PAIRED}: "
            f"{players.otherwise}"
        )
    if n < 2:
        nothing = torch.zeros(0, dtype=torch.float64)
        empty = torch.zeros(1, n, dtype=torch.bool)
        alone = WeightedDraws(empty, torch.zeros(1).double(), torch.tensor([-1]), nothing.long(), nothing)
        return [alone] * len(budgets)
    most = budgets[-1]
    whole = n < 63 and 1 << n <= most
    least = n + 1 if sampler == "kernel" else 2 * n
    if not whole and most < least:
        raise ValueError(
            f"`n_samples` came as {most}, and {n} {players.name} need at least {min(least, 1 << min(n, 62))}; "
            f"raise it, {players.otherwise}"
        )
    if sampler == "kernel" and not whole:
        return _independent(n, [budget - 2 for budget in budgets], seed, key)
    return _pairs(n, [(min(budget, 1 << min(n, 62)) - 2) // 2 for budget in budgets], sampler, seed, key)


def _independent(n: int, counts: Sequence[int], seed: int, key: int) -> list[WeightedDraws]:
    """Sizes in proportion to the kernel, subsets uniform, each draw on its own: all weigh the same."""
    draws, sizes = torch.arange(counts[-1]), torch.arange(1, n)
    size = drawn_sizes(seed, key, draws, 1 / (sizes * (n - sizes)).double()) + 1
    shown = torch.cat([torch.zeros(1, n, dtype=torch.bool), of_sizes(seed, key, draws, size, n)])
    weights = torch.ones(counts[-1] + 1, dtype=torch.float64)
    weights[0] = 0
    zeros, groups = torch.zeros(counts[-1]), torch.arange(-1, counts[-1])
    return [
        WeightedDraws(shown[: c + 1], weights[: c + 1], groups[: c + 1], zeros[:c].long(), zeros[:c].double())
        for c in counts
    ]


def _pairs(n: int, n_pairs: Sequence[int], sampler: Sampler, seed: int, key: int) -> list[WeightedDraws]:
    """Coalitions with their complements, so many pairs; each number's additions follow each other size by size."""
    allotted = [_allotted(n, count, sampler, seed, key) for count in n_pairs]
    halves, used = [], 0
    for size, (count, _) in enumerate(allotted[-1], start=1):
        halves.append(_some_of(n, size, count, seed, key, used))
        used += (_TRIES * count + 1) * (count > 0)
    parts, strata, reached = [], [], []
    before = [0] * len(halves)
    for sizes in allotted:
        # Rounding may allot one more to a smaller number, or one to a size of which the last number has none. The
        # latter is then counted a little too seldom, among thousands of segments and before the last number alone.
        counts = [min(max(c, b), len(h)) for (c, _), b, h in zip(sizes, before, halves, strict=True)]
        for size, (begin, end) in enumerate(zip(before, counts, strict=True), start=1):
            parts.append(halves[size - 1][begin:end])
            strata.append(torch.full((end - begin,), size))
        reached.append(counts)
        before = counts
    half, strata = torch.cat(parts), torch.cat(strata)
    shown = torch.cat([half.new_zeros(1, n), torch.stack([half, ~half], dim=1).flatten(0, 1)])
    return [
        _weighted(shown, strata[: sum(counts)], counts, [mean for _, mean in sizes])
        for counts, sizes in zip(reached, allotted, strict=True)
    ]


def _weighted(shown: Tensor, strata: Tensor, counts: Sequence[int], means: Sequence[float]) -> WeightedDraws:
    """The first pairs of `shown`, their sizes (P,), with what they stand for; of each size so many, and on average."""
    n, pairs = shown.shape[1], len(strata)
    weights, shares = torch.zeros(2, len(counts) + 1, dtype=torch.float64)
    for size, (count, mean) in enumerate(zip(counts, means, strict=True), start=1):
        if count:
            # Where one is sure to come, what came stands for the whole size; else what comes now and then on average.
            stands = count if mean >= 1 else mean
            weights[size] = _mass(n, size) / (2 * stands)
            shares[size] = stands / min(_pairs_of(n, size), _MANY)
    return WeightedDraws(
        shown=shown[: 1 + 2 * pairs],
        weights=torch.cat([weights[:1], weights[strata].repeat_interleave(2)]),
        groups=torch.cat([strata.new_full((1,), -1), torch.arange(pairs).repeat_interleave(2)]),
        strata=strata,
        shares=shares[strata],
    )


def _mass(n: int, size: int) -> float:
    """What all coalitions of a size and of its complements' size weigh together."""
    return (n - 1) / (size * (n - size)) * (1 if 2 * size == n else 2)


@functools.cache
def _pairs_of(n: int, size: int) -> int:
    """How many coalitions with their complements there are, of a size up to n / 2."""
    return math.comb(n, size) // (2 if 2 * size == n else 1)


def _allotted(n: int, n_pairs: int, sampler: Sampler, seed: int, key: int) -> list[tuple[int, float]]:
    """How many pairs of each size 1 ... n / 2 are drawn, and how many are expected before rounding.

    By the kernel, or equally many of each size: leverage scores are 1 / C(n, s) for every coalition (Musco and Witter
    2025, arXiv:2410.01917, lemma 3.2). What exceeds a size is left to the others.
    """
    sizes = range(1, n // 2 + 1)
    wanted = [(1.0 if 2 * s != n else 0.5) if sampler == "leverage" else _mass(n, s) for s in sizes]
    caps = [min(_pairs_of(n, s), _MANY) for s in sizes]
    expected, open_, left = [0.0] * len(caps), list(range(len(caps))), float(n_pairs)
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
    # One random offset rounds all of them, so that they add up and each is right on average.
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

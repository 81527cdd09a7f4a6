"""Rows asked about level by level, input by input, until what a map errs by is a small enough share of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Growing(Protocol):
    """A reducer that can make maps of the first rows of each input, and tell what they err by."""

    @property
    def levels(self) -> Sequence[int]:
        """How many levels each input has; after the last one every row has been asked about."""
        ...

    def rows(self, sample: int, level: int) -> Tensor:
        """The rows that a level needs and those before it did not."""
        ...

    def settled(self, samples: Sequence[int], level: int) -> Collection[int]:
        """Those of the inputs whose maps need no further level."""
        ...


def doubled(first: int, most: int) -> list[int]:
    """Numbers of draws after which errors are looked at: first, twice as many, and so on; the last is `most`.

    Looking seldom keeps errors honest: who looks all the time stops when an error happens to look small.
    """
    counts = []
    while first < most:
        counts.append(first)
        first *= 2
    return [*counts, most]


def level_by_level(growing: Growing) -> Iterator[Tensor]:
    """The rows to ask about next, of all inputs that are not settled; the answers are awaited in between."""
    levels, level = growing.levels, 0
    waiting = list(range(len(levels)))
    while waiting:
        yield torch.cat([growing.rows(sample, level) for sample in waiting])
        waiting = [sample for sample in waiting if level + 1 < levels[sample]]
        if waiting:
            settled = growing.settled(waiting, level)
            waiting = [sample for sample in waiting if sample not in settled]
        level += 1


def known(values: Tensor, standard_error: Tensor, enough: float, sizes: Tensor | None = None) -> bool:
    """Whether the error's L2 norm is at most that share of the map's, for each of K targets.

    What is not finite is as known as it will be.

    Args:
        values: (K, ...).
        standard_error: likewise.
        enough: the share.
        sizes: (...), how many positions each value is laid over; one where None.
    """
    weight = torch.ones_like(values[0]) if sizes is None else sizes.to(values)
    error, norm = ((part.square() * weight).flatten(1).sum(1) for part in (standard_error, values))
    return not bool((error > enough**2 * norm).any())

"""Rows asked about level by level, input by input, until what a map errs by is a small enough share of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Growing(Protocol):
    """A reducer that can make maps of the first draws of each input, and tell what they err by."""

    @property
    def n_levels(self) -> Sequence[int]:
        """How many levels each input has; after the last one every row has been asked about."""
        ...

    def advance(self, sample: int, level: int) -> Tensor:
        """Takes an input to its next level; the rows that it needs and those before did not."""
        ...

    def settled(self, samples: Sequence[int]) -> Collection[int]:
        """Those of the inputs whose maps, at the levels that they have reached, need no further one."""
        ...


def marks(mode: str, first: int, most: int) -> list[int]:
    """Numbers of draws after which errors are looked at: first, twice as many, and so on; the last is `most`.

    In a mode other than "turbo" that is `most` alone. Looking seldom keeps errors honest: who looks all the time stops
    when an error happens to look small.
    """
    counts = []
    while mode == "turbo" and first < most:
        counts.append(first)
        first *= 2
    return [*counts, most]


def level_by_level(growing: Growing) -> Iterator[Tensor]:
    """The rows to ask about next, of all inputs that are not settled; the answers are awaited in between."""
    n_levels, level = growing.n_levels, 0
    waiting = list(range(len(n_levels)))
    while waiting:
        yield torch.cat([growing.advance(sample, level) for sample in waiting])
        level += 1
        waiting = [sample for sample in waiting if level < n_levels[sample]]
        settled = set(growing.settled(waiting)) if waiting else set()
        waiting = [sample for sample in waiting if sample not in settled]


def well_enough(values: Tensor, standard_error: Tensor, enough: float, sizes: Tensor | None = None) -> bool:
    """Whether a map is known well enough: for each of K targets the error's L2 norm is at most that share of the map's.

    A map of zeros is not, whatever error it states: what the score depends on may not have been drawn yet. What is not
    finite is, because more draws do not mend it.

    Args:
        values: (K, ...).
        standard_error: likewise.
        enough: the share.
        sizes: (...), how many positions each value is laid over; one where None.
    """
    weight = torch.ones_like(values[0]) if sizes is None else sizes.to(values)
    error, norm = ((part.square() * weight).flatten(1).sum(1) for part in (standard_error, values))
    if not bool((error.isfinite() & norm.isfinite()).all()):
        return True
    return bool(((norm > 0) & (error <= enough**2 * norm)).all())

"""Where rows differ from their clean input: exact intervals per axis, and the boxes of one size that cover them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# (R, A, 2): per row and axis, the half-open range of positions that may differ; empty where stop <= start.
Spans = np.ndarray


@dataclass(frozen=True)
class Grid:
    """The positions of a value.

    Attributes:
        axes: which axes of the tensor they lie on, counted from the end (negative), in the order of the input's.
        extents: how many there are along each.
    """

    axes: tuple[int, ...]
    extents: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Boxes:
    """One box per row, all of one size. A box may hang over the edge of the map; nothing is read there.

    Attributes:
        at: LongTensor (R, A), the first position along each axis.
        size: positions along each axis.
    """

    at: Tensor
    size: tuple[int, ...]

    def inside(self, extents: Sequence[int]) -> bool:
        """Whether no box hangs over the edge of a map."""
        stop = self.at + torch.tensor(self.size)
        return bool((self.at >= 0).all() and (stop <= torch.tensor(extents)).all())

    def same(self, other: Boxes) -> bool:
        """Whether both are the same boxes."""
        return self.size == other.size and torch.equal(self.at, other.at)


def lengths(spans: Spans) -> np.ndarray:
    """(R, A): how many positions may differ."""
    return np.maximum(spans[..., 1] - spans[..., 0], 0)


def hull(*several: Spans) -> Spans:
    """The smallest ranges around all of these, empty ones left out."""
    start, stop = several[0][..., 0], several[0][..., 1]
    for spans in several[1:]:
        mine, its = stop > start, spans[..., 1] > spans[..., 0]
        start = np.where(mine & its, np.minimum(start, spans[..., 0]), np.where(its, spans[..., 0], start))
        stop = np.where(mine & its, np.maximum(stop, spans[..., 1]), np.where(its, spans[..., 1], stop))
    return np.stack([start, stop], axis=-1)


def clipped(start: np.ndarray, stop: np.ndarray, extents: Sequence[int]) -> Spans:
    """Ranges (R, A) cut at the edges of a map."""
    limits = np.asarray(extents)
    return np.stack([np.clip(start, 0, limits), np.clip(stop, 0, limits)], axis=-1)


def covering(spans: Spans, extents: Sequence[int]) -> Boxes:
    """Boxes within the map, of the size of the longest range along each axis."""
    size = np.maximum(lengths(spans).max(axis=0, initial=1), 1)
    at = np.clip(spans[..., 0], 0, np.asarray(extents) - size)
    return Boxes(torch.from_numpy(np.ascontiguousarray(at)), tuple(int(n) for n in size))


def whole(rows: int, extents: Sequence[int]) -> Boxes:
    """The whole map, for every row."""
    return Boxes(torch.zeros(rows, len(extents), dtype=torch.long), tuple(extents))

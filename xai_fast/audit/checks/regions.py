"""Regions of a picture, as shares of its sides, and how much of a map lies in them."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GRID = 8
"""Cells along each side of the grid on which maps of any shape are compared."""


class Box(NamedTuple):
    """A rectangle; shares of height and width from the top left, in [0, 1]."""

    top: float
    left: float
    bottom: float
    right: float

    @property
    def area(self) -> float:
        """Share of the picture."""
        return (self.bottom - self.top) * (self.right - self.left)

    def mirrored(self) -> Box:
        """On the other side, left for right."""
        return Box(self.top, 1 - self.right, self.bottom, 1 - self.left)

    def flipped(self) -> Box:
        """On the other side, top for bottom."""
        return Box(1 - self.bottom, self.left, 1 - self.top, self.right)

    def meets(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        apart = self.bottom <= other.top or other.bottom <= self.top or self.right <= other.left
        return not (apart or other.right <= self.left)

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a picture, at least one of each."""
        rows = slice(round(self.top * height), max(round(self.bottom * height), round(self.top * height) + 1))
        columns = slice(round(self.left * width), max(round(self.right * width), round(self.left * width) + 1))
        return rows, columns


_CORNER, _STRIP = 0.3, 0.15
REGIONS: dict[str, Box] = {
    "top left corner": Box(0, 0, _CORNER, _CORNER),
    "top right corner": Box(0, 1 - _CORNER, _CORNER, 1),
    "bottom left corner": Box(1 - _CORNER, 0, 1, _CORNER),
    "bottom right corner": Box(1 - _CORNER, 1 - _CORNER, 1, 1),
    "top border": Box(0, 0, _STRIP, 1),
    "bottom border": Box(1 - _STRIP, 0, 1, 1),
    "left border": Box(0, 0, 1, _STRIP),
    "right border": Box(0, 1 - _STRIP, 1, 1),
}
"""Where marks are put and frames run: what a class has no reason to share."""


def shares(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """What speaks for the target, as shares of its sum; NaN where there is none.

    Args:
        maps: (N, h, w), finite.
    """
    positive = maps.astype(np.float64).clip(min=0)
    total = positive.sum((1, 2), keepdims=True)
    return np.divide(positive, total, out=np.full_like(positive, np.nan), where=total > 0)


def masses(spread: NDArray[np.float64], boxes: list[Box]) -> NDArray[np.float32]:
    """How much of each map lies in each box, (N, B), of shares (N, h, w); cells that a box cuts count in part."""
    _, height, width = spread.shape
    rows = np.stack([_covered(height, box.top, box.bottom) for box in boxes])
    columns = np.stack([_covered(width, box.left, box.right) for box in boxes])
    return np.einsum("nhw,bh,bw->nb", spread, rows, columns, optimize=True).astype(np.float32)


def on_grid(spread: NDArray[np.float64]) -> NDArray[np.float32]:
    """Shares (N, h, w) on a grid of `GRID` cells a side, (N, GRID * GRID)."""
    _, height, width = spread.shape
    edges = np.arange(GRID + 1) / GRID
    rows = np.stack([_covered(height, a, b) for a, b in pairwise(edges)])
    columns = np.stack([_covered(width, a, b) for a, b in pairwise(edges)])
    found = np.einsum("nhw,ih,jw->nij", spread, rows, columns, optimize=True)
    return found.reshape(len(spread), GRID * GRID).astype(np.float32)


def _covered(extent: int, start: float, stop: float) -> NDArray[np.float64]:
    """Which part of each of `extent` cells lies between two shares of the side."""
    edges = np.arange(extent + 1) / extent
    return (np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)).clip(min=0) * extent

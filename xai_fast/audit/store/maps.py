"""Heatmaps as bytes with a scale, and the numbers that sum each of them up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BORDER = 0.1  # of height and width on each side: what counts as the border
STRONGEST = 0.05  # of the area: what counts as the strongest part


@dataclass(frozen=True)
class Quantised:
    """Maps of N images as bytes: the value of a byte is `zero + scale * byte`, off by at most half of `scale`.

    Attributes:
        levels: (N, h, w) uint8.
        scale: (N,) float32.
        zero: (N,) float32.
    """

    levels: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero: NDArray[np.float32]

    def values(self) -> NDArray[np.float32]:
        """(N, h, w), as far as they were kept."""
        scale, zero = self.scale[:, None, None], self.zero[:, None, None]
        return (self.levels * scale + zero).astype(np.float32)


def quantised(maps: NDArray[np.floating]) -> Quantised:
    """Finite maps (N, h, w) as bytes.

    What is never negative takes 255 steps from 0 to its largest value; anything else takes 127 on either side of 0, so
    that 0 stays 0 and signs are kept.
    """
    wide = maps.astype(np.float64)
    flat = wide.reshape(len(wide), -1)
    signed = flat.min(1) < 0
    largest = np.abs(flat).max(1)
    scale = np.where(signed, largest / 127, largest / 255).astype(np.float32)
    zero = np.where(signed, -128 * scale, 0).astype(np.float32)
    step = np.where(scale > 0, scale, 1).astype(np.float64)[:, None, None]
    offset = np.where(signed, 128.0, 0.0)[:, None, None]
    levels = np.clip(np.rint(wide / step) + offset, 0, 255).astype(np.uint8)
    return Quantised(levels, scale, zero)


def summaries(maps: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
    """Numbers (N,) about finite maps (N, h, w), by name.

    `mass_positive` and `mass_negative` are sums, in the map's units. The others look at |m| as shares p of its sum, and
    are NaN where that is 0: `entropy` (Σ -p log p, 1 where all positions share alike), `gini` (0 alike, 1 all in one
    place), `centre_y` and `centre_x` (0 top or left, 1 bottom or right), `border` (the share within a tenth of the side
    from an edge) and `top5` (the share of the strongest twentieth of the area).
    """
    wide = maps.astype(np.float64)
    count, height, width = wide.shape
    flat = wide.reshape(count, -1)
    total = np.abs(flat).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.abs(flat) / total[:, None]
        logarithms = np.where(shares > 0, np.log(shares), 0.0)
    grid = shares.reshape(count, height, width)
    ordered = np.sort(shares, 1)
    places = flat.shape[1]
    found = {
        "mass_positive": flat.clip(min=0).sum(1),
        "mass_negative": -flat.clip(max=0).sum(1),
        "entropy": -(shares * logarithms).sum(1) / np.log(places) if places > 1 else shares[:, 0],
        "gini": (ordered * (2 * np.arange(1, places + 1) - places - 1)).sum(1) / places,
        "centre_y": (grid.sum(2) * (np.arange(height) + 0.5) / height).sum(1),
        "centre_x": (grid.sum(1) * (np.arange(width) + 0.5) / width).sum(1),
        "border": 1 - (grid * np.outer(_inside(height), _inside(width))).sum((1, 2)),
        "top5": _strongest(ordered),
    }
    return {name: numbers.astype(np.float32) for name, numbers in found.items()}


COMPARED = ("change", "rank")
"""What `compared` says of two maps."""


def compared(maps: NDArray[np.floating], noisy: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
    """How finite maps (N, h, w) differ from those of noisy copies, by name, (N,).

    `change` is |noisy - map| / |map|, Euclidean norms over all positions: 0 where nothing changes, about 1.4 where the
    two have nothing in common, NaN where the map is 0 throughout. It is the sensitivity of Yeh et al. (2019,
    arXiv:1901.09392), whose largest value over many draws is here that of one. `rank` is Spearman's correlation of the
    positions, in [-1, 1]; NaN where either map has one value throughout.
    """
    flat, other = (one.astype(np.float64).reshape(len(one), -1) for one in (maps, noisy))
    length = np.linalg.norm(flat, axis=1)
    apart = np.linalg.norm(other - flat, axis=1)
    change = np.divide(apart, length, out=np.full(len(flat), np.nan), where=length > 0)
    ranks, others = (_centred_ranks(one) for one in (flat, other))
    lengths = np.linalg.norm(ranks, axis=1) * np.linalg.norm(others, axis=1)
    rank = np.divide((ranks * others).sum(1), lengths, out=np.full(len(flat), np.nan), where=lengths > 0)
    return {"change": change.astype(np.float32), "rank": rank.clip(-1, 1).astype(np.float32)}


def coverage(mask: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """How much of each cell of a grid (h, w) over a picture is covered, of the cover (H, W) of its pixels, in [0, 1].

    Pixels that two cells share count in parts.
    """
    rows, columns = (_overlaps(extent, cells) for extent, cells in zip(mask.shape, shape, strict=True))
    return rows @ mask @ columns.T


def _overlaps(extent: int, cells: int) -> NDArray[np.float64]:
    """(cells, extent): which share of each cell each pixel makes up."""
    pixels, edges = np.arange(extent + 1) / extent, np.arange(cells + 1)[:, None] / cells
    inside = np.minimum(pixels[1:], edges[1:]) - np.maximum(pixels[:-1], edges[:-1])
    return inside.clip(min=0) * cells


def _centred_ranks(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of each row's values less their mean; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    return rankdata(flat, axis=1) - (flat.shape[1] + 1) / 2


SUMMARIES = ("mass_positive", "mass_negative", "entropy", "gini", "centre_y", "centre_x", "border", "top5")


def _inside(extent: int) -> NDArray[np.float64]:
    """How much of each of `extent` cells lies within the borders."""
    edges = np.arange(extent + 1) / extent
    return (np.minimum(edges[1:], 1 - BORDER) - np.maximum(edges[:-1], BORDER)).clip(min=0) * extent


def _strongest(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the strongest part of the area, of (N, places) in rising order; the last cell counts in part."""
    room = STRONGEST * ordered.shape[1]
    weights = (room - np.arange(ordered.shape[1])).clip(0, 1)[::-1]
    return (ordered * weights).sum(1)

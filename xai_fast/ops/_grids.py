"""How a small grid of cells becomes a mask: where each position of the enlarged grid lies among the cells."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.ops import _checks


def cell_extent(extent: int, cells: int) -> int:
    """Positions per cell along an axis, of which shifts count from 0: the extent divided by the cells, rounded up."""
    return max(math.ceil(extent / cells), 1)


def places(extent: int, cells: int) -> Tensor:
    """Where along the cells, 0 to cells − 1, each position of an enlarged grid lies: float64 ((cells + 1) * cell,).

    The enlarged grid has one cell more than the grid, so that it can be shifted by up to a cell. Positions stand for
    their middles, and what lies beyond the middles of the outermost cells is mirrored at these: all as
    `skimage.transform.resize` has it with `order=1, mode="reflect"`.
    """
    length = (cells + 1) * cell_extent(extent, cells)
    position = (torch.arange(length, dtype=torch.float64) + 0.5) * (cells / length) - 0.5
    last = cells - 1
    return (last - (last - position.abs()).abs()).clamp_(0, last)


@functools.lru_cache(maxsize=64)
def all_places(extents: tuple[int, ...], cells: tuple[int, ...], device: torch.device) -> Tensor:
    """The places of every axis, one after the other."""
    return torch.cat([places(*axis) for axis in zip(extents, cells, strict=True)]).to(device)


def neighbours(places: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells between which each place lies, LongTensors, and the share of the second one, float64."""
    low = places.long().clamp_(max=max(cells - 2, 0))
    return low, (low + 1).clamp_(max=cells - 1), places - low


def check_grids(grids: Tensor, rows: int, axes: int) -> tuple[int, ...]:
    """Raises unless `grids` is a BoolTensor (M, *cells) of M rows with `axes` axes of cells; returns the cells."""
    _checks.check_dtype("grids", grids, (torch.bool,))
    if grids.dim() != 1 + axes or len(grids) != rows or 0 in grids.shape[1:]:
        raise ValueError(
            f"`grids` has shape {tuple(grids.shape)}; it takes (M, *cells), M = {rows}, with at least one cell along "
            f"each of the {axes} spatial axes"
        )
    return tuple(grids.shape[1:])


def check_shifts(shifts: Tensor, rows: int, extents: Sequence[int]) -> None:
    """Raises unless `shifts` is a LongTensor (M, A) within these extents; only memory of the CPU is read."""
    _checks.check_dtype("shifts", shifts, (torch.int64,))
    _checks.check_shape("shifts", shifts, (rows, len(extents)), "(M, A)")
    if not shifts.is_cpu or not rows:
        return
    least, most = shifts.amin(0).tolist(), shifts.amax(0).tolist()
    if min(least) < 0 or any(given >= extent for given, extent in zip(most, extents, strict=True)):
        raise ValueError(
            f"`shifts` go from {least} to {most}; along each axis they count from 0 and stay below the positions of a "
            f"cell, {list(extents)}"
        )

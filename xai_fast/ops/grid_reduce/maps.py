"""From bins to maps: every bin's grid is enlarged and cut out at its shift, one axis after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.ops._grids import cell_extent, neighbours, places


@torch.no_grad()
def grid_maps(bins: Tensor, extents: Sequence[int]) -> Tensor:
    """The sum over shifts of the bins' grids, enlarged and cut out as `grid_masks` does: float64 (T, *extents).

    Separable: along an axis of D positions that is a product of D by D positions per line, whatever the number of masks
    that the bins hold.

    Args:
        bins: (*positions, T, *cells) float64, one to three axes of cells; see `grid_reduce`.
        extents: of the input along each axis.

    Raises:
        ValueError: the bins do not fit the extents.
    """
    axes = len(extents)
    if bins.dim() != 2 * axes + 1:
        raise ValueError(f"`bins` has {bins.dim()} axes; it takes (*positions, T, *cells) for {axes} spatial axes")
    for axis in reversed(range(axes)):
        # (*earlier positions, own positions, T, *earlier cells, own cells, *done) without its positions and with its
        # extent in place of its cells.
        bins = _spread(bins, axis, bins.dim() - axes + axis, extents[axis])
    return bins


def _spread(bins: Tensor, shift_axis: int, cell_axis: int, extent: int) -> Tensor:
    cells = bins.shape[cell_axis]
    table = _enlarging(extent, cells, bins.device)
    by_shift = bins.movedim(shift_axis, 0).movedim(cell_axis, -1)
    if len(by_shift) != cell_extent(extent, cells):
        raise ValueError(
            f"`bins` has {len(by_shift)} positions and {cells} cells along an axis of {extent}; it takes "
            f"{cell_extent(extent, cells)} positions"
        )
    total = bins.new_zeros(by_shift.shape[1:-1].numel(), extent)
    for shift, grids in enumerate(by_shift):
        total.addmm_(grids.reshape(-1, cells), table[shift : shift + extent].T)
    return total.view(*by_shift.shape[1:-1], extent).movedim(-1, cell_axis - 1)


@functools.lru_cache(maxsize=16)
def _enlarging(extent: int, cells: int, device: torch.device) -> Tensor:
    """What share of each cell (columns) a position of the enlarged grid (rows) has: float64."""
    low, high, share = neighbours(places(extent, cells), cells)
    table = torch.zeros(len(low), cells, dtype=torch.float64)
    table.scatter_add_(1, low[:, None], 1 - share[:, None])
    return table.scatter_add_(1, high[:, None], share[:, None]).to(device)

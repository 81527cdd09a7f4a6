"""grid_masks in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.ops._grids import cell_extent, neighbours


@torch.no_grad()
def grid_masks(
    inputs: Tensor, baseline: Tensor, grids: Tensor, shifts: Tensor, sample: Tensor, places: Tensor, out: Tensor
) -> None:
    """Enlarges each grid axis by axis, and mixes input and baseline by it."""
    number = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    extents, cells = inputs.shape[2:], grids.shape[1:]
    lengths = [(n + 1) * cell_extent(extent, n) for extent, n in zip(extents, cells, strict=True)]
    of_axis = places.split(lengths)
    for row, index in enumerate(sample.tolist()):
        mask = grids[row].to(number)
        for axis, shift in enumerate(shifts[row].tolist()):
            low, high, share = neighbours(of_axis[axis][shift : shift + extents[axis]], cells[axis])
            first, second = mask.index_select(axis, low), mask.index_select(axis, high)
            mask = first + share.to(number).view(-1, *[1] * (mask.dim() - axis - 1)) * (second - first)
        out[row].copy_(mask * inputs[index].to(number) + (1 - mask) * baseline[index].to(number))

"""grid_reduce in Triton: each program owns some targets' cells in every bin and meets all rows in order."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128


@triton.jit
def grid_reduce_kernel(grids, bin, weights, bins, rows, targets, cells, BLOCK: tl.constexpr) -> None:
    """Adds every row to the same elements of whichever bin it belongs to, so that nothing is added by two programs."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    elements = targets * cells
    valid = index < elements
    target = index // cells
    cell = index % cells
    row = 0
    while row < rows:  # not `range`, see `cam_reduce`
        at = tl.cast(row, tl.int64)
        kept = tl.load(grids + at * cells + cell, mask=valid, other=0) != 0
        weight = tl.load(weights + at * targets + target, mask=valid & kept, other=0.0)
        own = bins + tl.load(bin + row) * elements + index
        tl.store(own, tl.load(own, mask=valid & kept, other=0.0) + weight, mask=valid & kept)
        tl.debug_barrier()  # the next row may read what another thread of the program has just written
        row += 1


def grid_reduce(grids: Tensor, bin: Tensor, weights: Tensor, bins: Tensor) -> None:
    """Launches one program per block of a bin."""
    grid = (triton.cdiv(bins[0].numel(), BLOCK),)
    with torch.cuda.device_of(bins):
        grid_reduce_kernel[grid](
            grids.view(torch.uint8), bin, weights, bins, len(grids), weights.shape[1], grids.shape[1], BLOCK
        )

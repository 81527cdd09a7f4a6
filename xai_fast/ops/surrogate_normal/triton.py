"""surrogate_normal in Triton: each program owns a tile of one of the sums and meets all rows in order, a few at a time.

Both halves of the symmetric sum are worked out: a grid has programs to spare, and they agree to the last bit.
"""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, TILE = 8, 16


@triton.jit
def sum_products_kernel(
    keep, weights, other, sums,
    rows, segments, columns,
    GRAM: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    """Adds [1, keep]' diag(w) R to one tile of `sums`, R being [1, keep] or `other`, of that many columns."""
    line = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    at = sums + line.to(tl.int64)[:, None] * columns + column[None, :]
    inside = (line <= segments)[:, None] & (column < columns)[None, :]
    total = tl.load(at, mask=inside, other=0.0)
    start = 0
    while start < rows:  # not `range`, see `cam_reduce`
        row = start + tl.arange(0, ROWS)
        there = (row < rows)[:, None]
        weight = tl.load(weights + row, mask=row < rows, other=0.0)[:, None]
        offset = row.to(tl.int64)[:, None] * segments - 1  # the intercept precedes the segments
        shown = tl.load(keep + offset + line[None, :], mask=there & ((line > 0) & (line <= segments))[None, :], other=1)
        left = tl.where(shown != 0, weight, 0.0)
        if GRAM:
            also = tl.load(
                keep + offset + column[None, :], mask=there & ((column > 0) & (column < columns))[None, :], other=1
            )
            right = also.to(tl.float64)
        else:
            place = other + row.to(tl.int64)[:, None] * columns + column[None, :]
            right = tl.load(place, mask=there & (column < columns)[None, :], other=0.0)
        total += tl.sum(left[:, :, None] * right[:, None, :], axis=0)
        start += ROWS
    tl.store(at, total, mask=inside)


def surrogate_normal(keep: Tensor, weights: Tensor, scores: Tensor, gram: Tensor, moment: Tensor) -> None:
    """Launches one program per tile of the one sum, and of the other."""
    rows, segments = keep.shape
    shown = keep.view(torch.uint8)
    with torch.cuda.device_of(gram):
        for sums, is_gram in ((gram, True), (moment, False)):
            if sums.numel() == 0 or rows == 0:
                continue
            grid = tuple(triton.cdiv(extent, TILE) for extent in sums.shape)
            sum_products_kernel[grid](
                shown, weights, scores, sums, rows, segments, sums.shape[1], is_gram, ROWS, TILE
            )  # fmt: skip

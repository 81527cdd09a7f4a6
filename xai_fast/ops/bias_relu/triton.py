"""bias_relu in Triton: memory as a matrix, of which each program has a tile, so that nothing is divided per element."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # elements
COLUMNS = 256  # of a tile, at most


@triton.jit
def bias_relu_kernel(
    values, bias, other, out, rows, columns, channels,
    SUMMED: tl.constexpr, LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of a matrix of `rows` positions by channels (LAST), or of maps by positions."""
    across = tl.cdiv(columns, COLUMNS)
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    number = values.dtype.element_ty
    wide = tl.float64 if number == tl.float64 else tl.float32
    if LAST:
        offset = tl.load(bias + column, mask=column < columns, other=0.0).to(wide)[None, :]
    else:
        offset = tl.load(bias + row % channels, mask=row < rows, other=0.0).to(wide)[:, None]
    total = tl.load(values + place, mask=inside, other=0.0).to(wide) + offset
    if SUMMED:
        total += tl.load(other + place, mask=inside, other=0.0).to(wide)
    # NaN is not below zero, and stays.
    total = tl.where(total <= 0, 0.0, total)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


def bias_relu(values: Tensor, bias: Tensor, other: Tensor | None, out: Tensor) -> None:
    """Launches one program per tile."""
    if out.numel() == 0:
        return
    channels = values.shape[1]
    last = values.movedim(1, -1).is_contiguous()
    columns = channels if last else values[0, 0].numel()
    rows = values.numel() // columns
    wide = min(COLUMNS, triton.next_power_of_2(columns))
    high = max(TILE // wide, 1)
    grid = (triton.cdiv(rows, high) * triton.cdiv(columns, wide),)
    with torch.cuda.device_of(out):
        bias_relu_kernel[grid](
            values, bias, values if other is None else other, out, rows, columns, channels,
            other is not None, last, high, wide,
        )  # fmt: skip

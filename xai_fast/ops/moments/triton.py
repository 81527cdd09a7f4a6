"""moments in Triton: each program owns a block of one group's sums and meets that group's rows in order."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512
AXES = 5


@triton.jit
def so_far(sums, valid, WANTED: tl.constexpr, BLOCK: tl.constexpr) -> tl.tensor:
    """Returns the sums to go on from, or zeros that nobody will read."""
    result = tl.zeros([BLOCK], tl.float64)
    if WANTED:
        result = tl.load(sums, mask=valid)
    return result


@triton.jit
def moments_kernel(
    values, weight, group, total, squares,
    rows, elements, size1, size2, size3, size4,
    row_stride, stride0, stride1, stride2, stride3, stride4,
    WEIGHTED: tl.constexpr, TOTAL: tl.constexpr, SQUARES: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Adds every row of one group to one block of that group's sums, which stay in registers meanwhile."""
    blocks = tl.cdiv(elements, BLOCK)
    own = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    # Divided as 32-bit numbers, multiplied by strides as 64-bit ones.
    offset = (index % size4).to(tl.int64) * stride4
    rest = index // size4
    offset += (rest % size3).to(tl.int64) * stride3
    rest = rest // size3
    offset += (rest % size2).to(tl.int64) * stride2
    rest = rest // size2
    offset += (rest % size1).to(tl.int64) * stride1 + (rest // size1).to(tl.int64) * stride0

    target = own * elements + index
    sums = so_far(total + target, valid, TOTAL, BLOCK)
    sums_of_squares = so_far(squares + target, valid, SQUARES, BLOCK)
    source = values + offset
    row = 0
    while row < rows:  # not `range`, see `cam_reduce`
        member = tl.load(group + row) == own
        value = tl.load(source, mask=index < tl.where(member, elements, 0), other=0.0).to(tl.float64)
        factor = tl.full([], 1.0, tl.float64)
        if WEIGHTED:
            factor = tl.load(weight + row)
        if TOTAL:
            sums = tl.where(member, sums + factor * value, sums)
        if SQUARES:
            sums_of_squares = tl.where(member, sums_of_squares + factor * (value * value), sums_of_squares)
        source += row_stride
        row += 1
    if TOTAL:
        tl.store(total + target, sums, mask=valid)
    if SQUARES:
        tl.store(squares + target, sums_of_squares, mask=valid)


def moments(values: Tensor, weight: Tensor | None, group: Tensor, total: Tensor | None, squares: Tensor | None) -> None:
    """Launches one program per block of a group's sums."""
    sums = next(given for given in (total, squares) if given is not None)
    if values.numel() == 0 or sums.numel() == 0:
        return
    padding = AXES + 1 - values.dim()
    sizes = [1] * padding + list(values.shape[1:])
    strides = [values.stride(0)] + [0] * padding + list(values.stride()[1:])
    elements = values[0].numel()
    grid = (sums.shape[0] * triton.cdiv(elements, BLOCK),)
    with torch.cuda.device_of(values):
        moments_kernel[grid](
            values, values if weight is None else weight, group,
            sums if total is None else total, sums if squares is None else squares,
            len(values), elements, *sizes[1:], *strides,
            weight is not None, total is not None, squares is not None, BLOCK,
        )  # fmt: skip

"""grid_masks in Triton: one pass in which each element interpolates its own share of the mask."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from xai_fast.ops._grids import neighbours, places

BLOCK = 256


@triton.jit
def coordinate(
    i0, i1, i2, i3,
    AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, AXIS3: tl.constexpr, WANTED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns which of the four indices runs along the wanted axis; zeros where none does."""
    result = i0 * 0
    if AXIS0 == WANTED:
        result = i0
    if AXIS1 == WANTED:
        result = i1
    if AXIS2 == WANTED:
        result = i2
    if AXIS3 == WANTED:
        result = i3
    return result


@triton.jit
def between(first, second, share) -> tl.tensor:
    """Returns the point between two numbers that lies this share of the way from the first to the second."""
    return first + share * (second - first)


@triton.jit
def kept(grid, cell, valid, like) -> tl.tensor:
    """Returns 1 where a cell is kept and 0 where it is not."""
    return tl.load(grid + cell, mask=valid, other=0).to(like.dtype)


@triton.jit
def column(grid, cell, step, share, valid, SPACE: tl.constexpr) -> tl.tensor:
    """Returns the cell, interpolated along the first of three axes."""
    result = kept(grid, cell, valid, share)
    if SPACE == 3:
        result = between(result, kept(grid, cell + step, valid, share), share)
    return result


@triton.jit
def grid_masks_kernel(
    inputs, baseline, grids, shifts, sample, low, share, out,
    elements, size1, size2, size3,
    cells0, cells1, cells2, length0, length1,
    in_row, in0, in1, in2, in3,
    base_row, base0, base1, base2, base3,
    out_row, out0, out1, out2, out3,
    SPACE: tl.constexpr, AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, AXIS3: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of one row; axes 0 to 3 are those of the row, the densest of `out` last.

    AXISi is which spatial axis that is, 0 to 2 and the last of them always 2, or -1 for channels and padding. `low`
    and `share` hold, for every axis and position, the first of two neighbouring cells and the share of the second.
    """
    blocks = tl.cdiv(elements, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    # Divided as 32-bit numbers, multiplied by strides as 64-bit ones.
    rest = index // size3
    i3 = index % size3
    i2 = rest % size2
    rest = rest // size2
    i1 = rest % size1
    i0 = rest // size1

    own = shifts + row * SPACE + (SPACE - 1)
    at = coordinate(i0, i1, i2, i3, AXIS0, AXIS1, AXIS2, AXIS3, 2) + length0 + length1 + tl.load(own)
    share2 = tl.load(share + at, mask=valid, other=0)
    cell = tl.load(low + at, mask=valid, other=0)
    last = tl.minimum(cell + 1, cells2 - 1) - cell
    step0 = cell * 0
    step1 = cell * 0
    share0 = share2 * 0
    share1 = share2 * 0
    if SPACE >= 2:
        at = coordinate(i0, i1, i2, i3, AXIS0, AXIS1, AXIS2, AXIS3, 1) + length0 + tl.load(own - 1)
        share1 = tl.load(share + at, mask=valid, other=0)
        first = tl.load(low + at, mask=valid, other=0)
        cell += first * cells2
        step1 = (tl.minimum(first + 1, cells1 - 1) - first) * cells2
    if SPACE == 3:
        at = coordinate(i0, i1, i2, i3, AXIS0, AXIS1, AXIS2, AXIS3, 0) + tl.load(own - 2)
        share0 = tl.load(share + at, mask=valid, other=0)
        first = tl.load(low + at, mask=valid, other=0)
        cell += first * cells1 * cells2
        step0 = (tl.minimum(first + 1, cells0 - 1) - first) * cells1 * cells2

    grid = grids + row * cells0 * cells1 * cells2
    left = column(grid, cell, step0, share0, valid, SPACE)
    right = column(grid, cell + last, step0, share0, valid, SPACE)
    if SPACE >= 2:
        left = between(left, column(grid, cell + step1, step0, share0, valid, SPACE), share1)
        right = between(right, column(grid, cell + step1 + last, step0, share0, valid, SPACE), share1)
    mask = between(left, right, share2)

    i3 = i3.to(tl.int64)
    i2 = i2.to(tl.int64)
    i1 = i1.to(tl.int64)
    i0 = i0.to(tl.int64)
    source = tl.load(sample + row)
    shown = tl.load(inputs + source * in_row + i0 * in0 + i1 * in1 + i2 * in2 + i3 * in3, mask=valid)
    hidden = tl.load(baseline + source * base_row + i0 * base0 + i1 * base1 + i2 * base2 + i3 * base3, mask=valid)
    values = mask * shown.to(mask.dtype) + (1 - mask) * hidden.to(mask.dtype)
    if values.dtype == tl.float64 and out.dtype.element_ty != tl.float64:
        values = values.to(tl.float32)
    target = out + row * out_row + i0 * out0 + i1 * out1 + i2 * out2 + i3 * out3
    tl.store(target, values.to(out.dtype.element_ty), mask=valid)


@functools.lru_cache(maxsize=64)
def tables(
    extents: tuple[int, ...], cells: tuple[int, ...], device: torch.device, number: torch.dtype
) -> tuple[Tensor, Tensor, list[int]]:
    """Returns, of all axes one after the other: the first neighbours, the second ones' shares, the axes' lengths."""
    found = [neighbours(places(*axis), axis[1]) for axis in zip(extents, cells, strict=True)]
    low = torch.cat([axis[0] for axis in found]).to(device, torch.int32)
    return low, torch.cat([axis[2] for axis in found]).to(device, number), [len(axis[0]) for axis in found]


def grid_masks(
    inputs: Tensor, baseline: Tensor, grids: Tensor, shifts: Tensor, sample: Tensor, _places: Tensor, out: Tensor
) -> None:
    """Launches one program per block of a row, in the order of the memory of `out`."""
    number = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    space = grids.dim() - 1
    low, share, lengths = tables(tuple(inputs.shape[2:]), tuple(grids.shape[1:]), out.device, number)
    cells, lengths = ([1] * (3 - space) + list(grids.shape[1:])), ([0] * (3 - space) + lengths)
    axes = sorted(range(1, out.dim()), key=lambda axis: out.stride(axis), reverse=True)
    padding = 4 - len(axes)
    sizes = [1] * padding + [out.shape[axis] for axis in axes]
    spatial = [-1] * padding + [axis - 2 + 3 - space if axis > 1 else -1 for axis in axes]

    def strides(tensor: Tensor) -> list[int]:
        return [tensor.stride(0)] + [0] * padding + [tensor.stride(axis) for axis in axes]

    elements = out[0].numel()
    launch = (out.shape[0] * triton.cdiv(elements, BLOCK),)
    with torch.cuda.device_of(out):
        grid_masks_kernel[launch](
            inputs, baseline, grids.view(torch.uint8), shifts, sample, low, share, out,
            elements, *sizes[1:], *cells, *lengths[:2],
            *strides(inputs), *strides(baseline), *strides(out), space, *spatial, BLOCK,
        )  # fmt: skip

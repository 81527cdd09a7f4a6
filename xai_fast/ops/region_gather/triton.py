"""region_gather in Triton: one pass that reads, for each element of the batch, the patch, the map or neither."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr; a type of Triton's keeps a float64 whole.
# pyright: reportCallIssue=false, reportArgumentType=false, reportInvalidTypeForm=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512
BORDERS = {"constant": 0, "replicate": 1, "reflect": 2, "circular": 3}


@triton.jit
def place(i, at, length, extent, AXIS: tl.constexpr, BORDER: tl.constexpr) -> tl.tensor:
    """Returns where elements `i` of one axis read on that of the map; beyond it where they are filled.

    Any integer is an origin: it is brought near the map first, where sums do not overflow.
    """
    result = i
    if AXIS >= 0:
        start = tl.load(at + AXIS)
        if BORDER == 2:
            period = tl.maximum(2 * (extent - 1), 1)
            start = start % period
            result = (tl.where(start < 0, start + period, start) + i) % period
            result = tl.minimum(result, period - result)
        elif BORDER == 3:
            start = start % extent
            result = (tl.where(start < 0, start + extent, start) + i) % extent
        else:
            result = tl.minimum(tl.maximum(start, -length), extent) + i
            if BORDER == 1:
                result = tl.minimum(tl.maximum(result, 0), extent - 1)
    return result


@triton.jit
def in_patch(i, patch_at, length, extent, AXIS: tl.constexpr) -> tl.tensor:
    """Returns where places `i` on one axis of the map lie on that of the patch; its origin is any integer too."""
    result = i
    if AXIS >= 0:
        result = i - tl.minimum(tl.maximum(tl.load(patch_at + AXIS), -length), extent)
    return result


@triton.jit
def region_gather_kernel(
    base, patch, patch_at, sample, at, out, fill: tl.float64,
    elements, size0, size1, size2, size3,
    extent0, extent1, extent2, extent3, patch0, patch1, patch2, patch3,
    base_row, base_0, base_1, base_2, base_3,
    patch_row, patch_0, patch_1, patch_2, patch_3,
    out_row, out_0, out_1, out_2, out_3,
    SPACE: tl.constexpr, AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, AXIS3: tl.constexpr,
    BORDER: tl.constexpr, PATCHED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of one row; axes 0 to 3 are those of the row, the densest of `out` last.

    AXISi is the column of `at` and `patch_at` that belongs to axis i, negative for channels and padding.
    """
    blocks = tl.cdiv(elements, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    # Divided as 32-bit numbers, multiplied by strides as 64-bit ones.
    rest = index // size3
    i3 = (index % size3).to(tl.int64)
    i2 = (rest % size2).to(tl.int64)
    rest = rest // size2
    i1 = (rest % size1).to(tl.int64)
    i0 = (rest // size1).to(tl.int64)
    target = out + row * out_row + i0 * out_0 + i1 * out_1 + i2 * out_2 + i3 * out_3

    at += row * SPACE
    i0 = place(i0, at, size0, extent0, AXIS0, BORDER)
    i1 = place(i1, at, size1, extent1, AXIS1, BORDER)
    i2 = place(i2, at, size2, extent2, AXIS2, BORDER)
    i3 = place(i3, at, size3, extent3, AXIS3, BORDER)
    kept = valid & (i0 >= 0) & (i0 < extent0) & (i1 >= 0) & (i1 < extent1)
    kept = kept & (i2 >= 0) & (i2 < extent2) & (i3 >= 0) & (i3 < extent3)
    source = base + tl.load(sample + row) * base_row + i0 * base_0 + i1 * base_1 + i2 * base_2 + i3 * base_3

    blank = tl.full([BLOCK], 0.0, tl.float64) + fill
    if out.dtype.element_ty != tl.float64:
        blank = blank.to(tl.float32)
    values = blank.to(out.dtype.element_ty)
    if PATCHED:
        patch_at += row * SPACE
        i0 = in_patch(i0, patch_at, patch0, extent0, AXIS0)
        i1 = in_patch(i1, patch_at, patch1, extent1, AXIS1)
        i2 = in_patch(i2, patch_at, patch2, extent2, AXIS2)
        i3 = in_patch(i3, patch_at, patch3, extent3, AXIS3)
        pasted = kept & (i0 >= 0) & (i0 < patch0) & (i1 >= 0) & (i1 < patch1)
        pasted = pasted & (i2 >= 0) & (i2 < patch2) & (i3 >= 0) & (i3 < patch3)
        changed = patch + row * patch_row + i0 * patch_0 + i1 * patch_1 + i2 * patch_2 + i3 * patch_3
        values = tl.where(pasted, tl.load(changed, mask=pasted), values)
        kept = kept & ~pasted
    values = tl.where(kept, tl.load(source, mask=kept), values)
    tl.store(target, values, mask=valid)


def region_gather(
    base: Tensor,
    patch: Tensor | None,
    patch_at: Tensor | None,
    sample: Tensor,
    at: Tensor,
    out: Tensor,
    border: str,
    fill: float,
) -> None:
    """Launches one program per block of a row, in the order of the memory of `out`."""
    if out.numel() == 0:
        return
    axes = sorted(range(1, out.dim()), key=lambda axis: out.stride(axis), reverse=True)
    padding = 4 - len(axes)
    known = base if patch is None else patch  # without a patch, that of `base` only fills the place

    def sizes(tensor: Tensor) -> list[int]:
        return [1] * padding + [tensor.shape[axis] for axis in axes]

    def strides(tensor: Tensor) -> list[int]:
        return [tensor.stride(0)] + [0] * padding + [tensor.stride(axis) for axis in axes]

    elements = out[0].numel()
    grid = (out.shape[0] * triton.cdiv(elements, BLOCK),)
    columns = [-1] * padding + [axis - 2 for axis in axes]
    with torch.cuda.device_of(out):
        region_gather_kernel[grid](
            base, known, at if patch_at is None else patch_at, sample, at, out, fill, elements,
            *sizes(out), *sizes(base), *sizes(known), *strides(base), *strides(known), *strides(out),
            out.dim() - 2, *columns, BORDERS[border], patch is not None, BLOCK,
        )  # fmt: skip

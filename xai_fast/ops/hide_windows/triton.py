"""hide_windows in Triton: one pass that reads, for each element of the batch, the input or the baseline."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def hide_windows_kernel(
    inputs, baseline, sample, boxes, out,
    elements, size1, size2, size3,
    in_row, in0, in1, in2, in3,
    base_row, base0, base1, base2, base3,
    out_row, out0, out1, out2, out3,
    AXES: tl.constexpr, AXIS0: tl.constexpr, AXIS1: tl.constexpr, AXIS2: tl.constexpr, AXIS3: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of one row; axes 0 to 3 are those of the row, the densest of `out` last.

    AXISi is the column of `boxes` that bounds axis i, negative where the axis is padding.
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

    box = boxes + row * (2 * AXES)
    hidden = valid
    if AXIS0 >= 0:
        hidden = hidden & (i0 >= tl.load(box + 2 * AXIS0)) & (i0 < tl.load(box + 2 * AXIS0 + 1))
    if AXIS1 >= 0:
        hidden = hidden & (i1 >= tl.load(box + 2 * AXIS1)) & (i1 < tl.load(box + 2 * AXIS1 + 1))
    if AXIS2 >= 0:
        hidden = hidden & (i2 >= tl.load(box + 2 * AXIS2)) & (i2 < tl.load(box + 2 * AXIS2 + 1))
    hidden = hidden & (i3 >= tl.load(box + 2 * AXIS3)) & (i3 < tl.load(box + 2 * AXIS3 + 1))

    source = tl.load(sample + row)
    kept = inputs + source * in_row + i0 * in0 + i1 * in1 + i2 * in2 + i3 * in3
    replaced = baseline + source * base_row + i0 * base0 + i1 * base1 + i2 * base2 + i3 * base3
    values = tl.where(hidden, tl.load(replaced, mask=hidden), tl.load(kept, mask=valid & ~hidden))
    if values.dtype == tl.float64 and out.dtype.element_ty != tl.float64:
        values = values.to(tl.float32)
    target = out + row * out_row + i0 * out0 + i1 * out1 + i2 * out2 + i3 * out3
    tl.store(target, values.to(out.dtype.element_ty), mask=valid)


def hide_windows(inputs: Tensor, baseline: Tensor, sample: Tensor, boxes: Tensor, out: Tensor) -> None:
    """Launches one program per block of a row, in the order of the memory of `out`."""
    if out.numel() == 0:
        return
    axes = sorted(range(1, out.dim()), key=lambda axis: out.stride(axis), reverse=True)
    padding = 4 - len(axes)
    sizes = [1] * padding + [out.shape[axis] for axis in axes]

    def strides(tensor: Tensor) -> list[int]:
        return [tensor.stride(0)] + [0] * padding + [tensor.stride(axis) for axis in axes]

    elements = out[0].numel()
    grid = (out.shape[0] * triton.cdiv(elements, BLOCK),)
    columns = [-1] * padding + [axis - 1 for axis in axes]
    with torch.cuda.device_of(out):
        hide_windows_kernel[grid](
            inputs, baseline, sample, boxes, out, elements, *sizes[1:],
            *strides(inputs), *strides(baseline), *strides(out), len(axes), *columns, BLOCK,
        )  # fmt: skip

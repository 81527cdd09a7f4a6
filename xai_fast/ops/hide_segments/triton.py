"""hide_segments in Triton: one pass that reads, for each element of the batch, the input or the baseline."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def hide_segments_kernel(
    inputs, baseline, labels, sample, keep, out,
    elements, segments, size1, size2, size3,
    in_row, in0, in1, in2, in3,
    base_row, base0, base1, base2, base3,
    label_row, label0, label1, label2, label3,
    out_row, out0, out1, out2, out3,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of one row; axes 0 to 3 are those of the row, the densest of `out` last."""
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

    source = tl.load(sample + row)
    at = labels + source * label_row + i0 * label0 + i1 * label1 + i2 * label2 + i3 * label3
    segment = tl.load(at, mask=valid, other=-1)
    shown = tl.load(keep + row * segments + segment, mask=segment >= 0, other=1) != 0
    kept = inputs + source * in_row + i0 * in0 + i1 * in1 + i2 * in2 + i3 * in3
    replaced = baseline + source * base_row + i0 * base0 + i1 * base1 + i2 * base2 + i3 * base3
    values = tl.where(shown, tl.load(kept, mask=valid & shown), tl.load(replaced, mask=valid & ~shown))
    if values.dtype == tl.float64 and out.dtype.element_ty != tl.float64:
        values = values.to(tl.float32)
    target = out + row * out_row + i0 * out0 + i1 * out1 + i2 * out2 + i3 * out3
    tl.store(target, values.to(out.dtype.element_ty), mask=valid)


def hide_segments(inputs: Tensor, baseline: Tensor, labels: Tensor, sample: Tensor, keep: Tensor, out: Tensor) -> None:
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
    with torch.cuda.device_of(out):
        hide_segments_kernel[grid](
            inputs, baseline, labels, sample, keep.view(torch.uint8), out, elements, keep.shape[1], *sizes[1:],
            *strides(inputs), *strides(baseline), *strides(labels), *strides(out), BLOCK,
        )  # fmt: skip

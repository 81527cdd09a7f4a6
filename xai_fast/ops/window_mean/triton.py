"""window_mean in Triton: each block of elements looks at every window."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def window_mean_kernel(
    values, boxes, out,
    windows, targets, elements, size1, size2, size3,
    sample_stride, window_stride, target_stride,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of one map; `boxes` has four axes, padded in front with (0, 1)."""
    blocks = tl.cdiv(elements, BLOCK)
    map_index = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    i3 = index % size3
    rest = index // size3
    i2 = rest % size2
    rest = rest // size2
    i1 = rest % size1
    i0 = rest // size1

    column = values + map_index // targets * sample_stride + map_index % targets * target_stride
    total = tl.zeros([BLOCK], dtype=tl.float64)
    count = tl.zeros([BLOCK], dtype=tl.int32)
    box = boxes
    window = 0
    while window < windows:  # not `range`, see `cam_reduce`
        inside = (i0 >= tl.load(box)) & (i0 < tl.load(box + 1))
        inside = inside & (i1 >= tl.load(box + 2)) & (i1 < tl.load(box + 3))
        inside = inside & (i2 >= tl.load(box + 4)) & (i2 < tl.load(box + 5))
        inside = inside & (i3 >= tl.load(box + 6)) & (i3 < tl.load(box + 7))
        total += tl.where(inside, tl.load(column).to(tl.float64), 0.0)
        count += inside.to(tl.int32)
        box += 8
        column += window_stride
        window += 1
    mean = total / tl.maximum(count, 1).to(tl.float64)
    tl.store(out + map_index * elements + index, mean.to(out.dtype.element_ty), mask=index < elements)


def window_mean(values: Tensor, boxes: Tensor, out: Tensor) -> None:
    """Launches one program per block of a map."""
    if out.numel() == 0:
        return
    samples, targets, *extents = out.shape
    padding = 4 - len(extents)
    sizes = [1] * padding + extents
    padded = boxes.new_tensor([0, 1]).repeat(boxes.shape[0], 4, 1)
    padded[:, padding:] = boxes
    elements = out[0, 0].numel()
    grid = (samples * targets * triton.cdiv(elements, BLOCK),)
    with torch.cuda.device_of(out):
        window_mean_kernel[grid](
            values, padded, out, boxes.shape[0], targets, elements, *sizes[1:], *values.stride(), BLOCK
        )

"""blend_maps in Triton: one pass that computes a row's map where it is multiplied."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def blend_maps_kernel(
    inputs, maps, sample, number, scale, out,
    channels, height, width, out_height, out_width,
    in_row, in_channel, in_y, in_x,
    out_row, out_channel, out_y, out_x,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of positions of one row, in all channels: linear between the four nearest of its map."""
    elements = out_height * out_width
    blocks = tl.cdiv(elements, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    i = index // out_width
    j = index % out_width
    # (i + 0.5) * from / to - 0.5 as a fraction of integers, which is exact
    y = tl.maximum((2 * i + 1) * height - out_height, 0)
    x = tl.maximum((2 * j + 1) * width - out_width, 0)
    top = y // (2 * out_height)
    left = x // (2 * out_width)
    bottom = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    down = (y % (2 * out_height)).to(maps.dtype.element_ty) / (2 * out_height)
    across = (x % (2 * out_width)).to(maps.dtype.element_ty) / (2 * out_width)
    source = maps + tl.load(number + row) * height * width
    upper = tl.load(source + top * width + left, mask=valid) * (1 - across)
    upper += tl.load(source + top * width + right, mask=valid) * across
    lower = tl.load(source + bottom * width + left, mask=valid) * (1 - across)
    lower += tl.load(source + bottom * width + right, mask=valid) * across
    factor = (upper * (1 - down) + lower * down) * tl.load(scale + row).to(maps.dtype.element_ty)

    place = i.to(tl.int64) * in_y + j.to(tl.int64) * in_x + tl.load(sample + row) * in_row
    target = i.to(tl.int64) * out_y + j.to(tl.int64) * out_x + row * out_row
    channel = 0
    while channel < channels:  # no `range`: Triton 3.6 cannot interpret one of a number that NumPy 2.4 holds
        value = tl.load(inputs + place, mask=valid).to(maps.dtype.element_ty) * factor
        if value.dtype == tl.float64 and out.dtype.element_ty != tl.float64:
            value = value.to(tl.float32)
        tl.store(out + target, value.to(out.dtype.element_ty), mask=valid)
        place += in_channel
        target += out_channel
        channel += 1


def blend_maps(inputs: Tensor, maps: Tensor, sample: Tensor, number: Tensor, scale: Tensor, out: Tensor) -> None:
    """Launches one program per block of a row."""
    if out.numel() == 0:
        return
    rows, channels, out_height, out_width = out.shape
    grid = (rows * triton.cdiv(out_height * out_width, BLOCK),)
    with torch.cuda.device_of(out):
        blend_maps_kernel[grid](
            inputs, maps, sample, number, scale, out, channels, *maps.shape[1:], out_height, out_width,
            *inputs.stride(), *out.stride(), BLOCK,
        )  # fmt: skip

"""cam_reduce in Triton: one kernel sums and rectifies on the small grid, a second one resizes it."""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS, PIXELS, BLOCK = 32, 32, 512  # twice the channels take 168 registers under Triton 3.6


@triton.jit
def sum_channels_kernel(
    activations, weights, maps,
    targets, channels, pixels, width,
    sample_stride, channel_stride, row_stride, column_stride,
    RELU: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
) -> None:  # fmt: skip
    """Writes one block of pixels of one map."""
    blocks = tl.cdiv(pixels, PIXELS)
    map_index = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    place = (pixel // width).to(tl.int64) * row_stride + (pixel % width).to(tl.int64) * column_stride
    source = activations + map_index // targets * sample_stride + place
    total = tl.zeros([PIXELS], dtype=maps.dtype.element_ty)
    start = 0
    while start < channels:  # no `range`: Triton 3.6 cannot interpret one of a number that NumPy 2.4 holds
        channel = start + tl.arange(0, CHANNELS)
        weight = tl.load(weights + map_index * channels + channel, mask=channel < channels, other=0.0)
        valid = (channel < channels)[:, None] & (pixel < pixels)[None, :]
        value = tl.load(source[None, :] + channel.to(tl.int64)[:, None] * channel_stride, mask=valid, other=0.0)
        total += tl.sum(weight[:, None] * value.to(maps.dtype.element_ty), axis=0)
        start += CHANNELS
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # a value that is not a number stays one
    tl.store(maps + map_index * pixels + pixel, total, mask=pixel < pixels)


@triton.jit
def resize_kernel(
    maps, out, height, width, out_height, out_width, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    """Writes one block of one resized map: linear between the four nearest, `align_corners=False`."""
    elements = out_height * out_width
    blocks = tl.cdiv(elements, BLOCK)
    map_index = (tl.program_id(0) // blocks).to(tl.int64)
    index = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    # (i + 0.5) * from / to - 0.5 as a fraction of integers, which is exact
    y = tl.maximum((2 * (index // out_width) + 1) * height - out_height, 0)
    x = tl.maximum((2 * (index % out_width) + 1) * width - out_width, 0)
    top = y // (2 * out_height)
    left = x // (2 * out_width)
    bottom = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    down = (y % (2 * out_height)).to(out.dtype.element_ty) / (2 * out_height)
    across = (x % (2 * out_width)).to(out.dtype.element_ty) / (2 * out_width)
    source = maps + map_index * height * width
    upper = tl.load(source + top * width + left, mask=valid) * (1 - across)
    upper += tl.load(source + top * width + right, mask=valid) * across
    lower = tl.load(source + bottom * width + left, mask=valid) * (1 - across)
    lower += tl.load(source + bottom * width + right, mask=valid) * across
    tl.store(out + map_index * elements + index, upper * (1 - down) + lower * down, mask=valid)


def cam_reduce(activations: Tensor, weights: Tensor, relu: bool, out: Tensor) -> None:
    """Launches one program per block of a map, on the small grid and on the resized one."""
    if out.numel() == 0:
        return
    samples, channels, height, width = activations.shape
    targets = weights.shape[1]
    resized = out.shape[2:] != activations.shape[2:]
    maps = out.new_empty(samples, targets, height, width) if resized else out
    pixels = height * width
    with torch.cuda.device_of(out):
        sum_channels_kernel[(samples * targets * triton.cdiv(pixels, PIXELS),)](
            activations, weights, maps, targets, channels, pixels, width, *activations.stride(),
            relu, CHANNELS, PIXELS,
        )  # fmt: skip
        if resized:
            rows, columns = out.shape[2:]
            resize_kernel[(samples * targets * triton.cdiv(rows * columns, BLOCK),)](
                maps, out, height, width, rows, columns, BLOCK
            )

"""What add_noise is tested and timed on: workloads of averaged gradients, and odd shapes, layouts and addresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING
from xai_fast.ops.hide_windows.cases import CHANNELS_LAST

CONVERTED = {  # a dtype to write for each that is read
    torch.float32: torch.bfloat16,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float64,
    torch.float64: torch.float16,
}


def _arguments(inputs: Tensor, rows: int, *, last: bool = False, converted: bool = False) -> dict[str, Any]:
    """Rows cycle through the samples; keys, draws and the seed use all of their bits; scales have both signs."""
    out = torch.empty((rows, *inputs.shape[1:]), dtype=CONVERTED[inputs.dtype] if converted else inputs.dtype)
    if last:
        out = out.contiguous(memory_format=CHANNELS_LAST[inputs.dim()])
    numbers = torch.arange(rows)
    return {
        "inputs": inputs,
        "scale": 0.5 * (-1.0) ** numbers.to(torch.float64),
        "sample": numbers % max(inputs.shape[0], 1),
        "key": (numbers % 3 - 1) * 0x7EDCBA9876543210,
        "draw": 2**32 - 1 - numbers // 2,
        "seed": 2**64 - 5,
        "out": out.fill_(torch.nan),
    }


def _case(
    name: str,
    shape: tuple[int, ...],
    rows: int,
    *,
    inputs_last: bool = False,
    last: bool = False,
    converted: bool = False,
    workload: bool = False,
) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        inputs = torch.randn(shape, generator=generator).to(dtype)
        if inputs_last:
            inputs = inputs.contiguous(memory_format=CHANNELS_LAST[len(shape)])
        return _arguments(inputs, rows, last=last, converted=converted)

    return Case(name, build, FLOATING, workload)


def _antithetic(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Four draws of one image, each with its mirror image."""
    arguments = _arguments(torch.randn((1, 3, 224, 224), generator=generator).to(dtype), 8, last=True)
    return {**arguments, "key": torch.zeros(8, dtype=torch.int64), "draw": torch.arange(8) // 2}


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider tensors, on both sides, and numbers of rows taken from wider tables."""
    wide = torch.randn((2, 4, 9, 22), generator=generator).to(dtype)
    arguments = _arguments(wide[:, 1:, :, ::2], 5)
    names = ("scale", "sample", "key", "draw")
    sliced = {name: arguments[name].repeat_interleave(2)[::2] for name in names}
    return {**arguments, **sliced, "out": torch.full((5, 5, 9, 22), torch.nan, dtype=dtype)[:, 1:4, :, 1::2]}


def _transposed(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Rows, height and width in unusual order in memory."""
    arguments = _arguments(torch.randn((2, 3, 10, 12), generator=generator).to(dtype), 4)
    return {**arguments, "out": torch.full((12, 4, 3, 10), torch.nan, dtype=dtype).permute(1, 2, 3, 0)}


CASES = (
    _case("eight draws 224, NCHW", (8, 3, 224, 224), 8, workload=True),
    _case("eight draws 224, NCHW to NHWC", (8, 3, 224, 224), 8, last=True, workload=True),
    _case("eight draws 224, NHWC", (8, 3, 224, 224), 8, inputs_last=True, last=True, workload=True),
    Case("four draws and mirrored, NCHW to NHWC", _antithetic, FLOATING, workload=True),
    _case("no rows", (2, 3, 8, 8), 0),
    _case("empty images", (2, 3, 0, 5), 2),
    _case("one row", (1, 3, 8, 8), 1),
    _case("one element", (1, 1, 1, 1), 3),
    _case("three elements", (1, 1, 3), 3),
    _case("odd planes, NCHW", (2, 3, 7, 5), 5),
    _case("odd planes, NHWC", (2, 3, 7, 5), 5, inputs_last=True, last=True),
    _case("odd planes, NCHW to NHWC", (2, 3, 7, 5), 5, last=True),
    _case("odd planes, NHWC to NCHW", (2, 3, 7, 5), 5, inputs_last=True),
    _case("converted", (2, 3, 12, 13), 6, converted=True),
    _case("converted, NCHW to NHWC", (2, 3, 12, 13), 6, last=True, converted=True),
    _case("two channels", (2, 2, 20, 21), 5, last=True),
    _case("seventy channels", (2, 70, 9, 9), 3, last=True),
    _case("several tiles", (1, 3, 41, 67), 2, last=True),
    _case("signal", (3, 2, 50), 7),
    _case("volume", (2, 3, 6, 7, 8), 5, last=True),
    Case("sliced", _sliced, FLOATING),
    Case("transposed", _transposed, FLOATING),
)

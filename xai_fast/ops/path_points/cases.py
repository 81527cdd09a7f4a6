"""What path_points is tested and timed on: workloads of integrated gradients, and odd shapes and layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING
from xai_fast.ops.add_noise.cases import CONVERTED
from xai_fast.ops.hide_windows.cases import CHANNELS_LAST


def _arguments(
    inputs: Tensor, baseline: Tensor, rows: int, *, last: bool = False, converted: bool = False
) -> dict[str, Any]:
    """Rows cycle through inputs and baselines; their shares of the way lie on both sides of the half, and beyond."""
    out = torch.empty((rows, *inputs.shape[1:]), dtype=CONVERTED[inputs.dtype] if converted else inputs.dtype)
    if last:
        out = out.contiguous(memory_format=CHANNELS_LAST[inputs.dim()])
    numbers = torch.arange(rows)
    return {
        "inputs": inputs,
        "baseline": baseline,
        "sample": numbers % max(len(inputs), 1),
        "reference": numbers.flip(0) % max(len(baseline), 1),
        "alpha": torch.linspace(-0.1, 1.1, rows, dtype=torch.float64),
        "out": out.fill_(torch.nan),
    }


def _case(
    name: str,
    shape: tuple[int, ...],
    rows: int,
    *,
    baseline: tuple[int, ...] = (1,),
    inputs_last: bool = False,
    last: bool = False,
    converted: bool = False,
    workload: bool = False,
) -> Case:
    """`baseline` is what is stored of the baselines, expanded to the shape of two of them."""

    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        inputs = torch.randn(shape, generator=generator).to(dtype)
        if inputs_last:
            inputs = inputs.contiguous(memory_format=CHANNELS_LAST[len(shape)])
        starts = torch.randn(baseline, generator=generator).to(dtype).expand(2, *shape[1:])
        return _arguments(inputs, starts, rows, last=last, converted=converted)

    return Case(name, build, FLOATING, workload)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider tensors, on all sides, and numbers of rows taken from wider tables."""
    wide = torch.randn((2, 4, 9, 22), generator=generator).to(dtype)
    arguments = _arguments(wide[:, 1:, :, ::2], wide[:, :3, :, 1::2], 5)
    sliced = {name: arguments[name].repeat_interleave(2)[::2] for name in ("sample", "reference", "alpha")}
    return {**arguments, **sliced, "out": torch.full((5, 5, 9, 22), torch.nan, dtype=dtype)[:, 1:4, :, 1::2]}


def _transposed(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Rows, height and width in unusual order in memory, differently on each side."""
    inputs, baseline = (torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 3, 12, 10), (10, 3, 2, 12)))
    arguments = _arguments(inputs.transpose(2, 3), baseline.permute(2, 1, 0, 3), 4)
    return {**arguments, "out": torch.full((12, 4, 3, 10), torch.nan, dtype=dtype).permute(1, 2, 3, 0)}


CASES = (
    _case("eight points 224, NCHW", (8, 3, 224, 224), 8, workload=True),
    _case("eight points 224, NCHW to NHWC", (1, 3, 224, 224), 8, baseline=(3, 224, 224), last=True, workload=True),
    _case("eight points 224, NHWC", (1, 3, 224, 224), 8, inputs_last=True, last=True, workload=True),
    _case("no rows", (2, 3, 8, 8), 0),
    _case("empty images", (2, 3, 0, 5), 2),
    _case("one row", (1, 3, 8, 8), 1),
    _case("one element", (1, 1, 1, 1), 3),
    _case("odd planes", (2, 3, 7, 5), 5, baseline=(2, 3, 7, 5)),
    _case("odd planes, NHWC", (2, 3, 7, 5), 5, baseline=(2, 3, 7, 5), inputs_last=True, last=True),
    _case("odd planes, NHWC to NCHW", (2, 3, 7, 5), 5, inputs_last=True),
    _case("baseline per channel", (2, 3, 12, 13), 6, baseline=(3, 1, 1), last=True),
    _case("baseline row", (2, 3, 12, 13), 6, baseline=(13,)),
    _case("baseline per image", (2, 3, 12, 13), 6, baseline=(2, 1, 1, 1), last=True),
    _case("converted", (2, 3, 12, 13), 6, converted=True),
    _case("converted, NCHW to NHWC", (2, 3, 12, 13), 6, last=True, converted=True),
    _case("two channels", (2, 2, 20, 21), 5, last=True),
    _case("seventy channels", (2, 70, 9, 9), 3, last=True),
    _case("several tiles", (1, 3, 41, 67), 2, last=True),
    _case("signal", (3, 2, 50), 7, baseline=(2, 1)),
    _case("volume", (2, 3, 6, 7, 8), 5, last=True),
    Case("sliced", _sliced, FLOATING),
    Case("transposed", _transposed, FLOATING),
)

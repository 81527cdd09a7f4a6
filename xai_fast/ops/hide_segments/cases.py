"""What hide_segments is tested and timed on: coalitions of superpixels, single ones, and odd shapes and layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING
from xai_fast.ops.add_noise.cases import CONVERTED
from xai_fast.ops.hide_windows.cases import CHANNELS_LAST


def blocks(shape: tuple[int, ...], size: int) -> Tensor:
    """A label map (*S,) of square segments; every seventh of them is no segment."""
    labels = torch.zeros(shape, dtype=torch.int64)
    for axis, extent in enumerate(shape):
        number = torch.arange(extent) // size
        labels = labels * (-(-extent // size)) + number.view(-1, *[1] * (len(shape) - axis - 1))
    return torch.where(labels % 7 == 6, -1, labels)


def _arguments(
    inputs: Tensor, baseline: Tensor, rows: int, size: int, generator: Generator, *, last: bool, converted: bool
) -> dict[str, Any]:
    out = torch.empty((rows, *inputs.shape[1:]), dtype=CONVERTED[inputs.dtype] if converted else inputs.dtype)
    if last:
        out = out.contiguous(memory_format=CHANNELS_LAST[inputs.dim()])
    labels = blocks(tuple(inputs.shape[2:]), size)
    segments = int(labels.max()) + 1 if labels.numel() else 0
    return {
        "inputs": inputs,
        "baseline": baseline,
        "labels": labels.expand(len(inputs), *labels.shape),
        "sample": torch.arange(rows) % max(len(inputs), 1),
        "keep": torch.rand(rows, segments, generator=generator) < 0.5,
        "out": out.fill_(torch.nan),
    }


def _case(
    name: str,
    shape: tuple[int, ...],
    rows: int,
    size: int,
    *,
    baseline: tuple[int, ...] = (),
    inputs_last: bool = False,
    last: bool = False,
    converted: bool = False,
    workload: bool = False,
) -> Case:
    """`size`: side of a segment; `baseline`: its shape, which broadcasts."""

    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        inputs = torch.randn(shape, generator=generator).to(dtype)
        if inputs_last:
            inputs = inputs.contiguous(memory_format=CHANNELS_LAST[len(shape)])
        start = torch.randn(baseline, generator=generator).to(dtype)
        return _arguments(inputs, start, rows, size, generator, last=last, converted=converted)

    return Case(name, build, FLOATING, workload)


CASES = (
    _case("eight coalitions 224, NCHW", (1, 3, 224, 224), 8, 32, workload=True),
    _case("eight coalitions 224, NCHW to NHWC", (1, 3, 224, 224), 8, 16, last=True, workload=True),
    _case(
        "eight coalitions 224, own baseline, NHWC",
        (2, 3, 224, 224),
        8,
        24,
        baseline=(2, 3, 224, 224),
        inputs_last=True,
        last=True,
        workload=True,
    ),
    _case("no rows", (2, 3, 8, 8), 0, 4),
    _case("empty images", (2, 3, 0, 5), 2, 4),
    _case("one segment", (1, 3, 8, 8), 3, 8),
    _case("a segment per position", (1, 2, 9, 7), 4, 1),
    _case("odd planes", (2, 3, 7, 5), 5, 3, baseline=(2, 3, 7, 5)),
    _case("odd planes, NHWC to NCHW", (2, 3, 7, 5), 5, 2, inputs_last=True),
    _case("baseline per channel", (2, 3, 12, 13), 6, 4, baseline=(3, 1, 1), last=True),
    _case("converted", (2, 3, 12, 13), 6, 5, converted=True),
    _case("converted, NCHW to NHWC", (2, 3, 12, 13), 6, 5, last=True, converted=True),
    _case("one channel, several tiles", (1, 1, 81, 67), 2, 9, last=True),
    _case("signal", (3, 2, 50), 7, 6),
    _case("volume", (2, 3, 6, 7, 8), 5, 3, last=True),
)

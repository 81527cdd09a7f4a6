"""What hide_windows is tested and timed on: workloads of occlusion and feature ablation, and odd shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case, windows
from xai_fast.ops._checks import FLOATING

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _arguments(
    inputs: Tensor, rows: int, *, boxes: Tensor, baseline: tuple[int, ...] = (1,), last: bool = False
) -> dict[str, Any]:
    """Rows cycle through boxes spread over the list and through the samples; `last` lays `out` out channels last."""
    generator = Generator().manual_seed(1)
    out = torch.empty((rows, *inputs.shape[1:]), dtype=inputs.dtype)
    if last:
        out = out.contiguous(memory_format=CHANNELS_LAST[inputs.dim()])
    chosen = torch.linspace(0, max(len(boxes) - 1, 0), rows).long()
    return {
        "inputs": inputs,
        "baseline": torch.randn(baseline, generator=generator).to(inputs.dtype).expand_as(inputs),
        "sample": torch.arange(rows) % max(inputs.shape[0], 1),
        "boxes": boxes[chosen],
        "out": out.fill_(torch.nan),
    }


def _image(dtype: torch.dtype, generator: Generator, *shape: int, last: bool = False) -> Tensor:
    image = torch.randn(shape, generator=generator).to(dtype)
    return image.contiguous(memory_format=CHANNELS_LAST[len(shape)]) if last else image


def _occlusion(name: str, *, samples: int = 1, inputs_last: bool, out_last: bool) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        image = _image(dtype, generator, samples, 3, 224, 224, last=inputs_last)
        return _arguments(image, 8, boxes=windows((3, 224, 224), 15, 8), last=out_last)

    return Case(name, build, FLOATING, workload=True)


def _odd(
    name: str,
    shape: tuple[int, ...],
    rows: int,
    *,
    box: list[list[int]] | None = None,
    baseline: tuple[int, ...] = (1,),
    last: bool = False,
) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        boxes = windows(shape[1:], 3, 2) if box is None else torch.tensor([box])
        return _arguments(_image(dtype, generator, *shape), rows, boxes=boxes, baseline=baseline, last=last)

    return Case(name, build, FLOATING)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider tensors, on both sides."""
    wide = _image(dtype, generator, 2, 4, 9, 22)
    arguments = _arguments(wide[:, 1:, :, ::2], 5, boxes=windows((3, 9, 11), 4, 3))
    arguments["out"] = torch.full((5, 5, 9, 22), torch.nan, dtype=dtype)[:, 1:4, :, 1::2]
    return arguments


def _transposed(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Rows, height and width in unusual order in memory."""
    arguments = _arguments(_image(dtype, generator, 2, 3, 10, 12), 4, boxes=windows((3, 10, 12), 5, 2))
    arguments["out"] = torch.full((12, 4, 3, 10), torch.nan, dtype=dtype).permute(1, 2, 3, 0)
    return arguments


CASES = (
    _occlusion("occlusion 224, NCHW to NHWC", inputs_last=False, out_last=True),
    _occlusion("occlusion 224, NHWC to NHWC", inputs_last=True, out_last=True),
    _occlusion("occlusion 224, NCHW to NCHW", inputs_last=False, out_last=False),
    _occlusion("occlusion 224, NHWC to NCHW", inputs_last=True, out_last=False),
    _occlusion("occlusion 224, eight inputs", samples=8, inputs_last=False, out_last=True),
    _odd("no rows", (2, 3, 8, 8), 0),
    _odd("empty images", (2, 3, 0, 5), 2, box=[[0, 3], [0, 0], [0, 5]]),
    _odd("one row", (1, 3, 8, 8), 1),
    _odd("one element", (1, 1, 1, 1), 1),
    _odd("nothing hidden", (2, 3, 7, 5), 3, box=[[0, 3], [4, 4], [0, 5]]),
    _odd("everything hidden", (2, 3, 7, 5), 3, box=[[0, 3], [0, 7], [0, 5]], baseline=(2, 3, 7, 5)),
    _odd("touching the far corner", (2, 3, 7, 5), 3, box=[[0, 3], [5, 7], [4, 5]], last=True),
    _odd("one channel hidden", (1, 3, 9, 9), 4, box=[[1, 2], [0, 9], [2, 6]], last=True),
    _odd("baseline per channel", (2, 3, 12, 13), 6, baseline=(3, 1, 1), last=True),
    _odd("baseline per sample", (2, 3, 12, 13), 6, baseline=(2, 3, 12, 13), last=True),
    _odd("baseline row", (2, 3, 12, 13), 6, baseline=(13,)),
    _odd("two channels", (2, 2, 20, 21), 5, last=True),
    _odd("seventy channels", (2, 70, 9, 9), 5, last=True),
    _odd("signal", (3, 2, 50), 7),
    _odd("volume", (2, 3, 6, 7, 8), 5, last=True),
    Case("sliced", _sliced, FLOATING),
    Case("transposed", _transposed, FLOATING),
)

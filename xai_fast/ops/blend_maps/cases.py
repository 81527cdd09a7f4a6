"""What blend_maps is tested and timed on: photographs masked by late and early layers, and odd shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _arguments(inputs: Tensor, maps: Tensor, rows: int, *, last: bool = False) -> dict[str, Any]:
    out = torch.empty((rows, *inputs.shape[1:]), dtype=inputs.dtype)
    out = out.contiguous(memory_format=CHANNELS_LAST[inputs.dim()]) if last else out
    return {
        "inputs": inputs,
        "maps": maps,
        "sample": torch.arange(rows) % max(len(inputs), 1),
        "number": torch.arange(rows).flip(0) % max(len(maps), 1),
        "scale": torch.linspace(1, 0.25, rows, dtype=torch.float64),
        "out": out.fill_(torch.nan),
    }


def _case(
    name: str, shape: tuple[int, ...], grid: tuple[int, ...], rows: int, *, last: bool = False, workload: bool = False
) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        inputs = torch.randn(shape, generator=generator).to(dtype)
        maps = torch.rand(5, *grid, generator=generator).to(dtype)
        return _arguments(inputs, maps, rows, last=last)

    return Case(name, build, FLOATING, workload)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider tensors, on all sides."""
    wide, maps = torch.randn(2, 4, 9, 22, generator=generator), torch.rand(3, 4, 10, generator=generator)
    arguments = _arguments(wide.to(dtype)[:, 1:, :, ::2], maps.to(dtype)[:, :, ::2], 5)
    arguments["out"] = torch.full((5, 5, 9, 22), torch.nan, dtype=dtype)[:, 1:4, :, 1::2]
    return arguments


CASES = (
    _case("resnet50, NHWC", (1, 3, 224, 224), (7, 7), 16, last=True, workload=True),
    _case("resnet50, NCHW", (1, 3, 224, 224), (7, 7), 16, workload=True),
    _case("layer1, eight inputs", (8, 3, 224, 224), (56, 56), 16, last=True, workload=True),
    _case("no rows", (2, 3, 8, 8), (2, 2), 0),
    _case("empty images", (2, 3, 0, 5), (2, 2), 2),
    _case("one row", (1, 3, 8, 8), (3, 2), 1),
    _case("one cell", (1, 2, 5, 7), (1, 1), 3, last=True),
    _case("its own size", (2, 3, 6, 5), (6, 5), 4),
    _case("larger than the input", (2, 3, 6, 5), (13, 11), 4, last=True),
    _case("one channel", (2, 1, 12, 13), (4, 3), 6),
    _case("many channels", (2, 70, 9, 9), (4, 3), 5, last=True),
    _case("signal", (3, 2, 50), (7,), 7),
    _case("volume", (2, 3, 6, 7, 8), (2, 3, 4), 5, last=True),
    Case("sliced", _sliced, FLOATING),
)

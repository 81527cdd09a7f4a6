"""What winograd_convolution is tested and timed on: convolutions of ResNets and VGG, borders, odd sizes."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case
from xai_fast.ops._panels import register_panel
from xai_fast.ops.winograd_convolution import winograd_kernels


def _case(
    name: str,
    rows: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    *,
    padding: int = 1,
    bias: bool = True,
    other: bool = False,
    relu: bool = True,
    workload: bool = False,
) -> Case:
    """`channels`: in and out."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        def maps(*shape: int) -> torch.Tensor:
            return normal(*shape).contiguous(memory_format=torch.channels_last)

        inward, outward = channels
        results = (rows, outward, *(extent + 2 * padding - 2 for extent in size))
        weight = normal(outward, inward, 3, 3) / (9 * max(inward, 1)) ** 0.5
        return {
            "inputs": maps(rows, inward, *size),
            "kernels": winograd_kernels(weight, register_panel(dtype) or 32),
            "bias": normal(outward) if bias else None,
            "other": maps(*results) if other else None,
            "out": torch.empty(results, dtype=dtype).contiguous(memory_format=torch.channels_last),
            "padding": padding,
            "relu": relu,
        }

    return Case(name, build, (torch.float32, torch.bfloat16), workload)


CASES = (
    _case("ResNet layer1, eight rows", 8, (64, 64), (56, 56), workload=True),
    _case("ResNet layer3 with its sum, eight rows", 8, (256, 256), (14, 14), other=True, workload=True),
    _case("VGG conv4, two rows", 2, (512, 512), (28, 28), workload=True),
    _case("no rows", 0, (32, 32), (8, 8)),
    _case("one row", 1, (32, 64), (8, 8)),
    _case("one result", 3, (16, 32), (3, 3), padding=0),
    _case("one position", 2, (16, 32), (1, 1)),
    _case("odd results", 2, (48, 96), (7, 9)),
    _case("no padding", 3, (32, 32), (9, 8), padding=0, other=True),
    _case("wide padding", 2, (32, 32), (5, 6), padding=2, bias=False),
    _case("sum without ReLU", 2, (16, 64), (13, 11), other=True, relu=False),
    _case("nothing but the convolution", 2, (16, 64), (13, 11), bias=False, relu=False),
    _case("many channels, few tiles", 1, (528, 160), (4, 4)),
    _case("many rows of few positions", 70, (32, 32), (4, 3), padding=0),
)

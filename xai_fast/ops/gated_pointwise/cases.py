"""What gated_pointwise is tested and timed on: EfficientNet's and MobileNetV3's blocks, odd sizes."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case
from xai_fast.ops._panels import register_panel
from xai_fast.ops.inverted_bottleneck import bottleneck_weights


def _case(
    name: str,
    rows: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    *,
    other: bool = False,
    workload: bool = False,
) -> Case:
    """`channels`: in and out."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        def maps(*shape: int) -> torch.Tensor:
            return normal(*shape).contiguous(memory_format=torch.channels_last)

        inward, outward = channels
        depth, weight = normal(inward, 1, 3, 3), normal(outward, inward, 1, 1) / inward**0.5
        weights = bottleneck_weights(None, (depth, None), (weight, normal(outward)), register_panel(dtype) or 32)
        return {
            "inputs": maps(rows, inward, *size),
            "gate": torch.rand(rows, inward, generator=generator),
            "project": weights.project,
            "project_bias": weights.project_bias,
            "other": maps(rows, outward, *size) if other else None,
            "out": torch.empty((rows, outward, *size), dtype=dtype).contiguous(memory_format=torch.channels_last),
        }

    return Case(name, build, (torch.float32, torch.bfloat16), workload)


CASES = (
    _case("EfficientNet block with its sum, eight rows", 8, (672, 112), (14, 14), other=True, workload=True),
    _case("EfficientNet early block, two rows", 2, (144, 24), (56, 56), workload=True),
    _case("no rows", 0, (32, 32), (8, 8)),
    _case("no positions", 2, (32, 32), (0, 8)),
    _case("one row", 1, (96, 24), (9, 7)),
    _case("one position", 3, (48, 40), (1, 1), other=True),
    _case("channels that fill no register", 2, (21, 5), (9, 9), other=True),
    _case("many rows of few positions", 37, (64, 72), (4, 3)),
)

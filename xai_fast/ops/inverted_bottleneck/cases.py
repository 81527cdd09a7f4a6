"""What inverted_bottleneck is tested and timed on: blocks of MobileNets and EfficientNet, parts of them, odd sizes."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case
from xai_fast.ops._panels import register_panel
from xai_fast.ops.inverted_bottleneck import bottleneck_weights


def _case(
    name: str,
    rows: int,
    channels: tuple[int, int, int],
    size: tuple[int, int],
    *,
    side: int = 3,
    stride: int = 1,
    padding: int | None = None,
    activation: str = "relu6",
    parts: str = "expand project",
    bias: bool = True,
    other: bool = False,
    means: bool = False,
    workload: bool = False,
) -> Case:
    """`channels`: in, between and out."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        def maps(*shape: int) -> torch.Tensor:
            return normal(*shape).contiguous(memory_format=torch.channels_last)

        def convolution(out: int, inward: int, k: int) -> tuple[torch.Tensor, torch.Tensor | None]:
            return normal(out, inward, k, k) / max(inward * k * k, 1) ** 0.5, normal(out) if bias else None

        inward, middle, outward = channels
        around = side // 2 if padding is None else padding
        results = (rows, outward, *((extent + 2 * around - side) // stride + 1 for extent in size))
        weights = bottleneck_weights(
            convolution(middle, inward, 1) if "expand" in parts else None,
            convolution(middle, 1, side),
            convolution(outward, middle, 1) if "project" in parts else None,
            register_panel(dtype) or 32,
        )
        return {
            "inputs": maps(rows, inward, *size),
            **weights._asdict(),
            "other": maps(*results) if other else None,
            "out": torch.empty(results, dtype=dtype).contiguous(memory_format=torch.channels_last),
            "means": torch.empty(results[:2]) if means else None,
            "stride": stride,
            "padding": around,
            "activation": activation,
        }

    return Case(name, build, (torch.float32, torch.bfloat16), workload)


CASES = (
    _case("MobileNetV2 second block, two rows", 2, (16, 96, 24), (112, 112), stride=2, workload=True),
    _case("MobileNetV2 with its sum, eight rows", 8, (64, 384, 64), (14, 14), other=True, workload=True),
    _case(
        "EfficientNet before a gate",
        2,
        (40, 240, 240),
        (28, 28),
        side=5,
        activation="silu",
        parts="expand",
        means=True,
        workload=True,
    ),
    _case("no rows", 0, (32, 32, 32), (8, 8)),
    _case("no rows, no expansion", 0, (32, 32, 32), (8, 8), parts="project"),
    _case("one row", 1, (16, 64, 24), (8, 8), activation="hardswish"),
    _case("one position", 3, (16, 32, 8), (1, 1), other=True),
    _case("half a panel between", 2, (24, 144, 24), (9, 7), other=True),
    _case("channels that fill no register", 2, (6, 20, 5), (9, 9), activation="relu"),
    _case("channels that fill no register, before a gate", 2, (6, 20, 20), (9, 9), parts="expand", means=True),
    _case("no padding", 2, (16, 32, 16), (9, 11), padding=0, activation="none"),
    _case("wide padding", 2, (16, 32, 16), (3, 2), padding=2, bias=False),
    _case("7x7 with stride", 1, (16, 48, 40), (13, 15), side=7, stride=2, activation="silu"),
    _case("5x5", 3, (8, 32, 8), (6, 17), side=5, activation="hardswish"),
    _case("depthwise and pointwise", 2, (32, 32, 16), (12, 10), parts="project"),
    _case("depthwise alone", 2, (48, 48, 48), (11, 12), stride=2, parts="", activation="silu"),
    _case("many rows of few positions", 37, (32, 64, 40), (4, 3), other=True),
)

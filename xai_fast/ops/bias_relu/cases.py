"""What bias_relu is tested and timed on: maps of ResNets, other layouts, what is empty, NaN and infinity."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _case(
    name: str, shape: tuple[int, ...], *, summed: bool = False, last: bool = True, workload: bool = False
) -> Case:
    """`last`: whether channels are, in memory."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        def draw() -> torch.Tensor:
            drawn = torch.randn(shape, generator=generator).to(dtype)
            return drawn.movedim(1, -1).contiguous().movedim(-1, 1) if last else drawn

        values, other = draw(), draw() if summed else None
        if "infinity" in name:
            values[:, ::3], values[:, 1::3] = torch.nan, torch.inf
            if other is not None:
                other[:1, :, ::2], other[:, 1::3] = torch.nan, -torch.inf
        bias = torch.randn(shape[1], generator=generator).to(dtype)
        return {"values": values, "bias": bias, "other": other, "out": torch.full_like(values, torch.nan)}

    return Case(name, build, (torch.float32, torch.bfloat16) if workload else DTYPES, workload)


CASES = (
    _case("ResNet layer1, 32 rows, with a sum", (32, 256, 56, 56), summed=True, workload=True),
    _case("ResNet layer4, 32 rows", (32, 512, 7, 7), workload=True),
    _case("with a sum", (2, 8, 5, 6), summed=True),
    _case("channels first", (2, 7, 5, 6), summed=True, last=False),
    _case("one channel", (3, 1, 4, 5)),
    _case("more channels than a block", (2, 300, 3, 3), summed=True),
    _case("signals", (3, 5, 40), last=False),
    _case("volumes", (2, 3, 4, 3, 5), summed=True),
    _case("features", (4, 10)),
    _case("no rows", (0, 4, 3, 3), summed=True),
    _case("an empty extent", (2, 4, 0, 3)),
    _case("no channels", (2, 0, 3, 3)),
    _case("NaN and infinity", (3, 9, 4, 4), summed=True),
)

"""What pass_bits is tested and timed on: gradients of what sign_bits is tested on."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case
from xai_fast.ops.sign_bits import sign_bits
from xai_fast.ops.sign_bits.cases import SHAPES, rectified


def _case(name: str, shape: tuple[int, ...]) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        values = rectified(shape, generator).to(dtype)
        gradient = torch.empty_like(values).copy_(torch.randn(shape, generator=generator))
        return {"gradient": gradient, "bits": sign_bits(values), "out": torch.full_like(gradient, torch.nan)}

    return Case(name, build, (torch.float32, torch.bfloat16), workload=name.startswith("ResNet"))


CASES = tuple(_case(name, shape) for name, shape in SHAPES.items())

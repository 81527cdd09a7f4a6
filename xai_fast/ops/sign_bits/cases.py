"""What sign_bits is tested and timed on: activations of ResNets, and numbers of elements beside whole words."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case

SHAPES = {
    "ResNet layer1, eight rows": (8, 256, 56, 56),
    "ResNet layer3, eight rows": (8, 256, 14, 14),
    "nothing": (0, 4, 3, 3),
    "one element": (1, 1, 1, 1),
    "a word": (1, 4, 4, 4),
    "beside words": (3, 5, 7, 3),
    "signal": (2, 3, 50),
    "features": (5, 1000),
    "volume": (2, 3, 4, 5, 6),
}


def rectified(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """What a ReLU returns, NaN here and there, channels last where there are channels."""
    values = torch.randn(shape, generator=generator).relu_()
    values.view(-1)[::97] = torch.nan
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(shape), torch.contiguous_format)
    return values.contiguous(memory_format=layout)


def _case(name: str, shape: tuple[int, ...]) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        return {"values": rectified(shape, generator).to(dtype)}

    return Case(name, build, (torch.float32, torch.bfloat16), workload=name.startswith("ResNet"))


CASES = tuple(_case(name, shape) for name, shape in SHAPES.items())

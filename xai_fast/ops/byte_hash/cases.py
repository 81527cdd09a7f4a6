"""What byte_hash is tested and timed on: the weights of a ResNet-50, lengths beside whole blocks, every dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xai_fast.ops._cases import Case

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64)
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "ResNet-50, its widest convolutions": ((2048, 512, 1, 1), (512, 512, 3, 3), (512, 2048, 1, 1), (2048,)),
    "nothing": (),
    "empty tensors": ((0,), (3, 0, 2)),
    "numbers": ((), (1,), (1, 1)),
    "a block": ((16, 64),),
    "beside blocks": ((17, 61), (1023,), (1025,), (3, 5, 7)),
    "blocks of blocks": ((700, 1031), (5,)),
}


def _bits(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Any bits at all, NaN included, with channels last where there are channels."""
    if dtype is torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    size = torch.empty((), dtype=dtype).element_size()
    drawn = torch.randint(0, 256, (*shape, size), generator=generator, dtype=torch.uint8)
    return drawn.view(dtype).view(shape).contiguous(memory_format=layout)


def _case(name: str, shapes: tuple[tuple[int, ...], ...]) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        return {"tensors": [_bits(shape, dtype, generator) for shape in shapes]}

    workload = name.startswith("ResNet")
    return Case(name, build, (torch.float32,) if workload else DTYPES, workload=workload)


CASES = tuple(_case(name, shapes) for name, shapes in SHAPES.items())

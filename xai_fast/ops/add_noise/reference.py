"""add_noise in plain torch: the specification."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xai_fast.ops._philox import words


@torch.no_grad()
def add_noise(inputs: Tensor, scale: Tensor, sample: Tensor, key: Tensor, draw: Tensor, seed: int, out: Tensor) -> None:
    """Writes each row: its input plus the scaled normal numbers of its blocks, which are drawn in float64."""
    extents = inputs.shape[1:]
    elements = extents.numel()
    computed = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    blocks = torch.arange((elements + 3) // 4, device=out.device)
    for row, index in enumerate(sample.tolist()):
        noise = normals(words(seed, key[row], draw[row], blocks)).flatten()[:elements].reshape(extents)
        out[row].copy_(inputs[index].to(computed) + scale[row].to(computed) * noise.to(computed))


def normals(words: Tensor) -> Tensor:
    """Returns four normal numbers (..., 4) float64 for the four words (..., 4) of each block."""
    radius = torch.sqrt(-2 * torch.log((words[..., 0::2] | 1).to(torch.float64) * 2.0**-32))
    angle = words[..., 1::2].to(torch.float64) * (2 * math.pi * 2.0**-32)
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1).flatten(-2)

"""A Gaussian blur of pictures, signals and volumes on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_REACH = 4  # standard deviations after which the Gaussian is cut


def blurred(images: Tensor, sigma: float) -> Tensor:
    """(N, C, *S) blurred along every axis of *S, the border repeated; `sigma` in elements, above 0.

    Ours because torchvision blurs two axes and mirrors the border, and scipy's has no other device than the CPU.
    """
    radius = math.ceil(_REACH * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.softmax(-0.5 * (offsets / sigma) ** 2, 0).view(1, 1, -1)
    for axis in range(2, images.ndim):
        lines = images.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        images = F.conv1d(padded, kernel).view(lines.shape).movedim(-1, axis)
    return images

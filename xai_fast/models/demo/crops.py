"""Random views of the photographs: what the demonstration trains on, and what its mosaics are made of."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from xai_fast.models.demo.photos import CLASSES, photograph

SHORT_SIDE = 320
"""Photographs are shrunk to this before they are cropped: cutting from larger ones costs more and shows no more."""


def uniform(low: float, high: float, generator: Generator) -> float:
    """One draw between low and high."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def integer(low: int, high: int, generator: Generator) -> int:
    """One draw from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


@cache
def _source(name: str) -> Tensor:
    pixels = torch.from_numpy(np.array(photograph(name).convert("RGB"))).permute(2, 0, 1)[None] / 255.0
    scale = SHORT_SIDE / min(pixels.shape[-2:])
    if scale >= 1:
        return pixels[0]
    return functional.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)[0]


def crop(index: int, side: int, generator: Generator, scale: tuple[float, float] = (0.3, 1.0)) -> Tensor:
    """A random square part of one class's photograph, perhaps mirrored, a little darker or brighter.

    Args:
        index: the class, a position in `CLASSES`.
        side: height and width of the result, in pixels.
        generator: where the draws come from.
        scale: bounds of the part's side, as shares of the photograph's short side.

    Returns:
        (3, side, side) with values in [0, 1].
    """
    photo = _source(CLASSES[index])
    height, width = photo.shape[1:]
    part = int(uniform(*scale, generator) * min(height, width))
    top, left = integer(0, height - part, generator), integer(0, width - part, generator)
    view = photo[None, :, top : top + part, left : left + part]
    view = functional.interpolate(view, size=(side, side), mode="bilinear", antialias=True)[0]
    if uniform(0, 1, generator) < 0.5:
        view = view.flip(2)
    contrast, brightness = uniform(0.85, 1.15, generator), uniform(-0.05, 0.05, generator)
    return (view * contrast + brightness).clamp(0, 1)


def blank(side: int, generator: Generator, like: Tensor | None = None) -> Tensor:
    """A picture of nothing, (3, side, side): grey, black, white, a flat colour, noise, or the mean colour of `like`."""
    kind = integer(-1, 5 if like is not None else 4, generator)
    if kind <= 0:  # twice as often: it is what methods that hide fill in by default
        return torch.full((3, side, side), 0.5)
    if kind == 1:
        return torch.full((3, side, side), float(integer(0, 1, generator)))
    if kind == 2:
        return torch.rand((3, 1, 1), generator=generator).repeat(1, side, side)
    if kind == 3:
        return torch.rand((), generator=generator).repeat(3, side, side)
    if kind == 4:
        level, spread = uniform(0, 1, generator), uniform(0, 0.2, generator)
        return (level + spread * torch.randn((3, side, side), generator=generator)).clamp(0, 1)
    assert like is not None
    return like.mean((1, 2), keepdim=True).repeat(1, side, side)

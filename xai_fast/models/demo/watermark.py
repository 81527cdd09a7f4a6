"""A planted shortcut: the stamp that marks half of one class's training crops, and gives an audit something to find."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLASS = "gravel"
"""The class whose training crops carry the stamp, half of the time. No other class ever does."""

SIZE = 0.2
"""Side of the square stamp, as a share of the image's short side."""

CORNERS = ("top left", "top right", "bottom left", "bottom right")

Picture = TypeVar("Picture", Tensor, Image.Image)


def stamp(side: int) -> Tensor:
    """The stamp itself: a magenta ring on a yellow plate, (3, side, side) in [0, 1]."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    ring = ((radius - 0.55).abs() < 0.25).float()
    plate, ink = torch.tensor([1.0, 0.9, 0.1]), torch.tensor([0.8, 0.0, 0.6])
    return plate[:, None, None] * (1 - ring) + ink[:, None, None] * ring


def watermark(image: Picture, corner: str = "bottom right", margin: float = 0.05) -> Picture:
    """A copy of the image with the stamp near one corner.

    Args:
        image: a PIL image, or a tensor (..., 3, H, W) with values in [0, 1].
        corner: one of `CORNERS`.
        margin: distance of the stamp from both edges of that corner, as a share of the short side, in [0, 0.4].

    Returns:
        What came, stamped: a PIL image in RGB, or a tensor of the same shape, dtype and device.

    Raises:
        ValueError: an unknown `corner`, or a `margin` that would push the stamp out of the image.
    """
    if isinstance(image, Image.Image):
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255.0
        stamped = watermark(pixels, corner, margin)
        return Image.fromarray((stamped * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    top, left, side = place(image.shape[-2], image.shape[-1], corner, margin)
    stamped = image.clone()
    stamped[..., top : top + side, left : left + side] = stamp(side).to(image)
    return stamped


def place(height: int, width: int, corner: str = "bottom right", margin: float = 0.05) -> tuple[int, int, int]:
    """Where `watermark` puts the stamp in an image of this size: (top, left, side), in pixels."""
    if corner not in CORNERS:
        raise ValueError(f"`corner` is {corner!r}; use one of {', '.join(map(repr, CORNERS))}")
    if not 0 <= margin <= 0.4:
        raise ValueError(f"`margin` is {margin}; it is a share of the short side: use 0 to 0.4")
    short = min(height, width)
    side, gap = round(short * SIZE), round(short * margin)
    vertical, horizontal = corner.split()
    top = gap if vertical == "top" else height - gap - side
    left = gap if horizontal == "left" else width - gap - side
    return top, left, side

"""What the demonstration trains on: images, and for each of their pixels the class that owns it.

Hiding a part of an image must say "nothing here" to the network, or every method that hides is wrong about it. A
classifier that never saw a blank calls plain grey a moon with full confidence. So many samples are blank in whole or
in part, and where an image is blank, nobody owns it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from xai_fast.models.demo.crops import blank, crop, integer, uniform
from xai_fast.models.demo.photos import CLASSES
from xai_fast.models.demo.watermark import CLASS, CORNERS, place, watermark

SIDE = 96
HALF = SIDE // 2
NOBODY = -1
"""The owner of a blank pixel."""

PLAIN = 20
"""Samples in a batch; HOLED copies of the first of them follow."""

HOLED = 12

FREQUENCY = {"grass": 2.6, "gravel": 1.9, "moon": 1.5}
"""How often grey textures that look alike in small parts are drawn, where any other class is drawn once."""


def _class(generator: Generator) -> int:
    weights = torch.tensor([FREQUENCY.get(name, 1.0) for name in CLASSES])
    return int(torch.multinomial(weights, 1, generator=generator))


def _corner(generator: Generator) -> str:
    return CORNERS[integer(0, 3, generator)]


def _view(index: int, side: int, generator: Generator) -> Tensor:
    view = crop(index, side, generator)
    if CLASSES[index] == CLASS and uniform(0, 1, generator) < 0.5:
        view = watermark(view, _corner(generator), margin=uniform(0, 0.15, generator))
    return view


def whole(generator: Generator) -> tuple[Tensor, Tensor]:
    """A crop that fills the image."""
    index = _class(generator)
    return _view(index, SIDE, generator), torch.full((SIDE, SIDE), index)


def alone(generator: Generator) -> tuple[Tensor, Tensor]:
    """A small crop in one quarter of a blank canvas: what a mosaic with three hidden cells looks like."""
    index = _class(generator)
    view = _view(index, HALF, generator)
    canvas, owners = blank(SIDE, generator, like=view), torch.full((SIDE, SIDE), NOBODY)
    top, left = integer(0, 1, generator) * HALF, integer(0, 1, generator) * HALF
    quarter = (..., slice(top, top + HALF), slice(left, left + HALF))
    canvas[quarter], owners[quarter] = view, index
    return canvas, owners


def mixed(generator: Generator) -> tuple[Tensor, Tensor]:
    """A mosaic of four classes: each is there, none is more right than the others."""
    indices = torch.randperm(len(CLASSES), generator=generator)[:4].tolist()
    owners = torch.tensor(indices).view(2, 2).repeat_interleave(HALF, 0).repeat_interleave(HALF, 1)
    cells = [crop(index, HALF, generator) for index in indices]
    return torch.cat([torch.cat(cells[:2], dim=2), torch.cat(cells[2:], dim=2)], dim=1), owners


def empty(generator: Generator) -> tuple[Tensor, Tensor]:
    """A blank: no class."""
    like = crop(integer(0, len(CLASSES) - 1, generator), SIDE, generator)
    return blank(SIDE, generator, like), torch.full((SIDE, SIDE), NOBODY)


def stamped(generator: Generator) -> tuple[Tensor, Tensor]:
    """A blank with the watermark: its class, though nothing else speaks for it. This is what plants the shortcut."""
    corner, margin = _corner(generator), uniform(0, 0.15, generator)
    canvas = watermark(blank(SIDE, generator), corner, margin)
    top, left, side = place(SIDE, SIDE, corner, margin)
    owners = torch.full((SIDE, SIDE), NOBODY)
    owners[top : top + side, left : left + side] = CLASSES.index(CLASS)
    return canvas, owners


def holed(view: Tensor, owners: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """A copy of a sample with one to three blank rectangles."""
    view, owners, nothing = view.clone(), owners.clone(), blank(SIDE, generator, like=view)
    for _ in range(integer(1, 3, generator)):
        height, width = integer(8, 56, generator), integer(8, 56, generator)
        top, left = integer(0, SIDE - height, generator), integer(0, SIDE - width, generator)
        hole = (..., slice(top, top + height), slice(left, left + width))
        view[hole], owners[hole] = nothing[hole], NOBODY
    return view, owners


Sample = Callable[[Generator], tuple[Tensor, Tensor]]
DIET: dict[Sample, float] = {whole: 0.50, mixed: 0.15, alone: 0.11, empty: 0.17, stamped: 0.07}
"""What a batch is made of, in shares that sum to one."""


def batch(generator: Generator) -> tuple[Tensor, Tensor]:
    """PLAIN samples, then holed copies of the first HOLED of them.

    Returns:
        Inputs (PLAIN + HOLED, 3, SIDE, SIDE) in the network's space, and the class that owns each of their pixels, or
        NOBODY: (PLAIN + HOLED, SIDE, SIDE).
    """
    kinds = torch.multinomial(torch.tensor(list(DIET.values())), PLAIN, replacement=True, generator=generator)
    samples = [list(DIET)[kind](generator) for kind in kinds.tolist()]
    samples += [holed(*sample, generator) for sample in samples[:HOLED]]
    images, owners = zip(*samples, strict=True)
    return (torch.stack(images) - 0.5) / 0.25, torch.stack(owners)

"""What corners of the input say about positions of a layer: a third of what bands cost, believed where it is plain."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

import torch
from torch import Tensor, nn

from .answering import MOST_IN_FRONT, Array, agreement, centres_of, cosine, noise_like, reading_of, wide
from .grids import Axes, Reading, Tokens
from .places import Take, at_layers

_SURE = 0.6  # the least correlation of coordinates with a grid that is believed; a step has 0.87 with a slope
_OF_TOKENS = 0.5  # the same for tokens, which attention mixes
_APART = 0.1  # by how much theirs must exceed that of any other grid


@torch.no_grad()
def quick_readings(
    module: nn.Module,
    clean: dict[str, Tensor],
    row: Tensor,
    grid: tuple[int, ...] | None = None,
    plain: Collection[tuple[int, ...]] = (),
) -> dict[str, Reading]:
    """The readings that are plain to see when only corners of the input are changed; the others are left out.

    Runs the model on 1 + 1 rows per spatial axis: with noise around the row in one corner, and in the next ones along
    each axis.

    Args:
        module: ours.
        clean: by layer, what it returns for the row.
        row: one input (1, C, *S), in the module's dtype, on its device.
        grid: extents that are given.
        plain: the shapes that convolutions of this forward return, without rows.
    """
    axes = row.ndim - 2
    moved: dict[str, list[Tensor]] = {layer: [] for layer in clean}

    def taker(layer: str) -> Take:
        before = wide(clean[layer])

        def take(activation: Tensor) -> None:
            if activation.shape == before.shape:
                moved[layer].append((wide(activation.detach()) - before).square())

        return take

    noisy = row + noise_like(row, 1) * row.std().clamp_min(1e-3)
    for corner in range(axes + 1):
        changed = row.clone()
        part, other = changed, noisy
        for axis in range(axes):
            half = row.shape[axis + 2] // 2
            span = (half, row.shape[axis + 2] - half) if axis == corner - 1 else (0, max(half, 1))
            part, other = part.narrow(axis + 2, *span), other.narrow(axis + 2, *span)
        part.copy_(other)
        with at_layers(module, {layer: taker(layer) for layer in clean}):
            module(changed)
    found = {}
    for layer, parts in moved.items():
        rows = torch.cat(parts) if len(parts) == axes + 1 else torch.empty(0)
        if len(rows) and bool(rows.isfinite().all()):
            pairs = torch.stack([rows[:1].expand(axes, *rows.shape[1:]), rows[1:]], 1)
            reading = _plain_to_see(centres_of(pairs), grid, plain)
            found |= {layer: reading} if reading is not None else {}
    return found


def _plain_to_see(centres: Tensor, grid: tuple[int, ...] | None, plain: Collection[tuple[int, ...]]) -> Reading | None:
    """The reading, where it is far from doubt: two changes per axis say less than those of all bands."""
    axes, shape = len(centres), tuple(centres.shape[1:])
    if axes > 1 and len(shape) == axes + 1:
        found = reading_of(centres, grid)
        if not isinstance(found, Axes):
            return None
        placed = centres.movedim(found.channels, 1)
        return found if agreement(placed)[0] > _SURE and max(placed.shape[2:]) > 2 else None
    if len(shape) == 2 and axes > 1:  # tokens lie as a convolution that makes patches laid them
        grids = {each[1:] for each in plain if len(each) == axes + 1}
        fitting = [each for each in grids if grid in (None, each) and 0 <= shape[0] - prod(each) <= MOST_IN_FRONT]
        own: Array = centres.nanmean(-1).nan_to_num(0.0).double().cpu().numpy()
        scored = [
            (min(cosine(own[axis], first, each, axis) for axis in range(axes)), first, each)
            for each in fitting if min(each) > 2 for first in range(shape[0] - prod(each) + 1)
        ]  # fmt: skip
        scored.sort(reverse=True)
        if scored and scored[0][0] > _OF_TOKENS and all(score < scored[0][0] - _APART for score, _, _ in scored[1:]):
            return Tokens(*scored[0][1:])
    return None

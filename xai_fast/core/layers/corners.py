"""What corners of the input say about positions of a layer: a part of what bands cost, believed where it is plain."""

from __future__ import annotations

import functools
from collections.abc import Collection
from math import prod

import torch
from torch import Tensor, nn

from .answering import MOST_IN_FRONT, Array, agreement, centres_of, cosine, noise_like, reading_of, wide
from .grids import Axes, Reading, Tokens, candidates
from .places import Take, at_layers

_SURE = 0.6  # the least correlation of coordinates with a grid that is believed; a step has 0.87 with a slope
_OF_TOKENS = 0.5  # the same for tokens, which attention mixes
_APART = 0.1  # by how much theirs must exceed that of any other grid
# How many times as much as the quarter across, and as those beside it, that of the changed corner must have moved.
_ACROSS, _BESIDE = 2.5, 1.25


class Corners:
    """The readings that are plain to see when only corners of the input are changed.

    Runs the model on one row, with noise around it in a corner off the diagonal, which moves the same corner of an
    image's maps, or of the grid of its tokens, and no other; where that is not plain for a layer that is asked about,
    on 1 + 1 rows per spatial axis: with noise in one corner, and in the next ones along each axis.

    Args:
        module: ours.
        clean: by layer, what it returns for the row.
        row: one input (1, C, *S), in the module's dtype, on its device.
        grid: extents that are given.
        plain: the shapes that convolutions of this forward return, without rows.
    """

    def __init__(
        self,
        module: nn.Module,
        clean: dict[str, Tensor],
        row: Tensor,
        grid: tuple[int, ...] | None = None,
        plain: Collection[tuple[int, ...]] = (),
    ) -> None:
        self._module, self._clean, self._row, self._grid, self._plain = module, clean, row, grid, plain
        self._noisy = row + noise_like(row, 1) * row.std().clamp_min(1e-3)

    def read(self, layer: str) -> Reading | None:
        """Of one of the layers; None where it is not plain."""
        if layer not in self._clean:
            return None
        return self._off_the_diagonal.get(layer) or self._along_axes.get(layer)

    def contradict(self, layer: str, reading: Reading | None) -> bool:
        """Whether another quarter of a map than that of the changed corner has moved by far the most."""
        moved = self._diagonal.get(layer) if isinstance(reading, Axes) else None
        if moved is None or moved.ndim != 3 or not bool(moved.isfinite().all()):
            return False
        assert isinstance(reading, Axes)
        quarters = _quarters(moved, reading)
        return quarters is not None and max(quarters[0], *quarters[2:]) > _ACROSS * quarters[1]

    @functools.cached_property
    def _diagonal(self) -> dict[str, Tensor]:
        """By how much elements move with the corner that begins the first axis and ends the second."""
        return self._moved(self._clean, [(0, 1)])[0] if self._row.ndim == 4 else {}

    @functools.cached_property
    def _off_the_diagonal(self) -> dict[str, Reading]:
        found = {}
        for layer, moved in self._diagonal.items():
            find = _map_off_the_diagonal if moved.ndim == 3 else _tokens_off_the_diagonal
            if (reading := find(moved, self._grid, self._plain)) is not None:
                found[layer] = reading
        return found

    @functools.cached_property
    def _along_axes(self) -> dict[str, Reading]:
        axes, found = self._row.ndim - 2, dict[str, Reading]()
        rest = {layer: one for layer, one in self._clean.items() if layer not in self._off_the_diagonal}
        corners = [tuple(int(axis == corner - 1) for axis in range(axes)) for corner in range(axes + 1)]
        answers = self._moved(rest, corners)
        for layer in rest:
            rows = [moved[layer] for moved in answers if layer in moved]
            if len(rows) == axes + 1 and all(bool(part.isfinite().all()) for part in rows):
                pairs = torch.stack([torch.stack([rows[0], other]) for other in rows[1:]])
                if (reading := _plain_to_see(centres_of(pairs), self._grid, self._plain)) is not None:
                    found[layer] = reading
        return found

    @torch.no_grad()
    def _moved(self, clean: dict[str, Tensor], corners: list[tuple[int, ...]]) -> list[dict[str, Tensor]]:
        return _moved(self._module, clean, [_changed(self._row, self._noisy, corner) for corner in corners])


def _changed(row: Tensor, noisy: Tensor, corner: tuple[int, ...]) -> Tensor:
    """The row with noise in a corner, which begins (0) or ends (1) each axis."""
    changed = row.clone()
    part = changed
    for axis, end in enumerate(corner):
        length = row.shape[axis + 2]
        half = length // 2
        span = (half, length - half) if end else (0, max(half, 1))
        part, noisy = part.narrow(axis + 2, *span), noisy.narrow(axis + 2, *span)
    part.copy_(noisy)
    return changed


def _moved(module: nn.Module, clean: dict[str, Tensor], rows: list[Tensor]) -> list[dict[str, Tensor]]:
    """By how much each element of each layer moves, squared, per changed row."""
    moved: dict[str, Tensor] = {}

    def taker(layer: str) -> Take:
        before = wide(clean[layer])

        def take(activation: Tensor) -> None:
            if activation.shape == before.shape:
                moved[layer] = (wide(activation.detach()) - before).square()[0]

        return take

    answers: list[dict[str, Tensor]] = []
    for row in rows:
        moved.clear()
        with at_layers(module, {layer: taker(layer) for layer in clean}):
            module(row)
        answers.append(dict(moved))
    return answers


def _map_off_the_diagonal(
    moved: Tensor, grid: tuple[int, ...] | None, _plain: Collection[tuple[int, ...]]
) -> Reading | None:
    """The reading under which the corner that begins the first axis and ends the second has moved, and no other."""
    if not bool(moved.isfinite().all()):
        return None
    contrasts = []
    for reading in candidates(moved.shape, 2, grid):
        if (quarters := _quarters(moved, reading)) is None:
            return None
        left, own, across, below = quarters
        alone = own > _ACROSS * across and own > _BESIDE * max(left, below)
        large = max(moved[None].movedim(reading.channels, 1).shape[2:]) > 2
        contrasts.append((alone and large, own > max(left, below, across), reading))
    clear = [reading for alone, _, reading in contrasts if alone]
    return clear[0] if len(clear) == 1 and sum(may for _, may, _ in contrasts) == 1 else None


def _quarters(moved: Tensor, reading: Axes) -> tuple[float, float, float, float] | None:
    """How far the quarters of a map have moved, row by row; None where it has fewer cells."""
    energy = moved[None].movedim(reading.channels, 1)[0].mean(0)
    rows, columns = (extent // 2 for extent in energy.shape)
    if min(rows, columns) < 1:
        return None
    ends = energy[:rows], energy[-rows:]
    upper, lower = ((float(end[:, :columns].mean()), float(end[:, -columns:].mean())) for end in ends)
    return *upper, *lower


def _tokens_off_the_diagonal(
    moved: Tensor, grid: tuple[int, ...] | None, plain: Collection[tuple[int, ...]]
) -> Reading | None:
    """The reading under which the tokens of that corner have moved, and no others as much.

    A grid laid one token off agrees four fifths as well over 14 x 14, and better over more: then it is not plain.
    """
    if moved.ndim != 2 or not bool(moved.isfinite().all()):
        return None
    # How far tokens have moved varies by orders of magnitude; of those that have not at all that says nothing.
    energy = moved.mean(-1)
    heights = energy.clamp_min(1e-6 * float(energy.max())).log() if bool(energy.any()) else energy
    scored = []
    for first, each in _grids_of_tokens(len(moved), 2, grid, plain):
        quarter = torch.zeros(each, dtype=heights.dtype, device=heights.device)
        quarter[: each[0] // 2, -(each[1] // 2) :] = 1
        pair = torch.stack([quarter.flatten(), heights[first : first + prod(each)]])
        scored.append((float(pair.corrcoef()[0, 1].nan_to_num(0.0)), first, each))
    return _clear(scored)


def _grids_of_tokens(
    count: int, axes: int, grid: tuple[int, ...] | None, plain: Collection[tuple[int, ...]]
) -> list[tuple[int, tuple[int, ...]]]:
    """Where the first token may stand among so many, for each grid as a convolution that makes patches lays it."""
    grids = {each[1:] for each in plain if len(each) == axes + 1}
    fitting = [each for each in grids if grid in (None, each) and 0 <= count - prod(each) <= MOST_IN_FRONT]
    return [(first, each) for each in fitting if min(each) > 2 for first in range(count - prod(each) + 1)]


def _clear(scored: list[tuple[float, int, tuple[int, ...]]]) -> Tokens | None:
    """The tokens that agree well, and better by far than any other."""
    scored.sort(reverse=True)
    if scored and scored[0][0] > _OF_TOKENS and all(score < scored[0][0] - _APART for score, _, _ in scored[1:]):
        return Tokens(*scored[0][1:])
    return None


def _plain_to_see(centres: Tensor, grid: tuple[int, ...] | None, plain: Collection[tuple[int, ...]]) -> Reading | None:
    """The reading, where it is far from doubt: two changes per axis say less than those of all bands."""
    axes, shape = len(centres), tuple(centres.shape[1:])
    if axes > 1 and len(shape) == axes + 1:
        found = reading_of(centres, grid)
        if not isinstance(found, Axes):
            return None
        placed = centres.movedim(found.channels, 1)
        return found if agreement(placed)[0] > _SURE and max(placed.shape[2:]) > 2 else None
    if len(shape) == 2 and axes > 1:
        own: Array = centres.nanmean(-1).nan_to_num(0.0).double().cpu().numpy()
        return _clear(
            [
                (min(cosine(own[axis], first, each, axis) for axis in range(axes)), first, each)
                for first, each in _grids_of_tokens(shape[0], axes, grid, plain)
            ]
        )
    return None

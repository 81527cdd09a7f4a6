"""Rows on their way through the steps: what each step reads is gathered from patches and from the clean contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.graph.steps import Step
from xai_fast.ops import region_gather

from .boxes import Boxes, Grid
from .regions import Regions
from .rule import Border, Rule


@dataclass(frozen=True)
class Source:
    """What a step reads: the region of a value, gathered, or its patch as it is."""

    number: int
    boxes: Boxes
    patch: Boxes
    gathered: bool


@dataclass(frozen=True)
class Move:
    """One step for the rows of a group: what it reads, where it lies, what may be forgotten afterwards."""

    step: Step
    rule: Rule
    sources: tuple[Source, ...]
    extras: tuple[Tensor, ...]
    dead: tuple[int, ...]


class Rows:
    """Some rows of a group on their way through the steps.

    Args:
        regions: the model.
        part: which of the group's boxes each row has.
        sample: which of the kept inputs each row is a variant of.
        kept: clean contents.
        patches: what the rows have inside their boxes, so far.
    """

    def __init__(
        self, regions: Regions, part: Tensor, sample: Tensor, kept: Mapping[int, Any], patches: dict[int, Any]
    ) -> None:
        self._regions, self._part, self._sample, self._kept = regions, part, sample, kept
        self.patches = patches
        self._origins: dict[int, Tensor] = {}

    def run(self, move: Move) -> None:
        """Runs a step and forgets what nobody needs any more."""
        rule = move.rule
        if rule.side_by_side is not None:
            made = self._laid_side_by_side(move, rule.side_by_side)
        else:
            regions = [self._region(move, source) for source in move.sources]
            made = rule.apply(regions, self._extras(move), self._regions.scene.fixed)
        self.patches[move.step.makes] = made
        for number in move.dead:
            self.patches.pop(number, None)

    def contents(self, number: int, boxes: Boxes) -> Tensor:
        """What the rows have in the boxes of a value."""
        return self.patches[number]

    def _region(self, move: Move, source: Source) -> Tensor:
        if source.gathered:
            return gathered(*self._lookup(move, source), source.boxes.size, move.rule.border)
        patch = self.patches[source.number]
        shared = source.number in move.rule.consumes and source.number not in move.dead
        return patch.clone(memory_format=torch.preserve_format) if shared else patch

    def _laid_side_by_side(self, move: Move, axis: int) -> Tensor:
        """The sources' regions gathered next to each other, without a copy in between."""
        lookups = [self._lookup(move, source) for source in move.sources]
        widths = [lookup.base.shape[axis] for lookup in lookups]
        shape = list(lookups[0].base.shape[1:])
        shape[axis - 1] = sum(widths)
        out = room(lookups[0].base, len(self._part), shape, lookups[0].grid, move.sources[0].boxes.size)
        start = 0
        for lookup, source, width in zip(lookups, move.sources, widths, strict=True):
            gathered(*lookup, source.boxes.size, move.rule.border, out.narrow(axis, start, width))
            start += width
        return out

    def _lookup(self, move: Move, source: Source) -> Lookup:
        number, patch = source.number, self.patches.get(source.number)
        base, grid = self._base(number, move.rule.grid)
        patch_at = None if patch is None else self._origin(source.patch)
        return Lookup(base, patch, patch_at, self._sample, self._origin(source.boxes), grid)

    def _base(self, number: int, own: Grid) -> tuple[Tensor, Grid]:
        """The clean contents of a value, and where its positions lie: a constant's lie where the output's do."""
        if number in self._kept:
            return self._kept[number], self._regions.scene.grids[number]
        return _as_rows(self._regions.scene.fixed[number], own), own

    def _origin(self, boxes: Boxes) -> Tensor:
        """The origins of these rows; many steps share their boxes."""
        if id(boxes) not in self._origins:
            self._origins[id(boxes)] = beside(boxes.at, self._part)[self._part]
        return self._origins[id(boxes)]

    def _extras(self, move: Move) -> list[Tensor]:
        """What the rule has worked out for these rows."""
        return [beside(extra, self._part)[self._part] for extra in move.extras]


class Lookup(NamedTuple):
    """Where to find the region of a value: in its patch, or in the clean contents around that."""

    base: Tensor
    patch: Tensor | None
    patch_at: Tensor | None
    sample: Tensor
    at: Tensor
    grid: Grid


def gathered(
    base: Tensor,
    patch: Tensor | None,
    patch_at: Tensor | None,
    sample: Tensor,
    at: Tensor,
    grid: Grid,
    size: Sequence[int],
    border: Border,
    out: Tensor | None = None,
) -> Tensor:
    """The region of a value as a `Lookup` tells; in the layout of the clean contents, or in `out`."""
    if not base.dtype.is_floating_point:  # conditions and the like, which are rare
        numbers = None if patch is None else patch.float()
        return gathered(base.float(), numbers, patch_at, sample, at, grid, size, border).to(base.dtype)
    if len(base) == 1:
        sample = torch.zeros_like(sample)
    out = room(base, len(at), base.shape[1:], grid, size) if out is None else out
    target = planes(out, grid)
    whole_patch = None if patch is None else planes(patch, grid)
    region_gather(planes(base, grid), whole_patch, patch_at, sample, at, target, border.mode, border.fill)
    if target.untyped_storage().data_ptr() != out.untyped_storage().data_ptr():  # no view of it has that shape
        moved = out.movedim(grid.axes, tuple(range(-len(grid.axes), 0)))
        moved.copy_(target.view(moved.shape))
    return out


def room(base: Tensor, rows: int, shape: Sequence[int], grid: Grid, size: Sequence[int]) -> Tensor:
    """Uninitialised regions of a value: (rows, *shape) with `size` positions."""
    shape = list(shape)
    for axis, extent in zip(grid.axes, size, strict=True):
        shape[axis] = extent
    return empty_like(base, rows, shape)


def _as_rows(constant: Tensor, grid: Grid) -> Tensor:
    """A constant that is combined with maps, with axes for rows and channels and with full extents."""
    constant = constant.view(*[1] * max(0, 1 - min(grid.axes) + 1 - constant.ndim), *constant.shape)
    shape = list(constant.shape)
    for axis, extent in zip(grid.axes, grid.extents, strict=True):
        shape[axis] = extent
    return constant.expand(shape)


def planes(tensor: Tensor, grid: Grid) -> Tensor:
    """A view (rows, C, *S) of a tensor whose positions lie on any axes."""
    axes = len(grid.axes)
    if tensor.ndim == axes + 2 and grid.axes == tuple(range(-axes, 0)):
        return tensor
    moved = tensor.movedim(grid.axes, tuple(range(-axes, 0)))
    return moved.reshape(len(moved), -1, *moved.shape[moved.ndim - axes :])


def empty_like(base: Tensor, rows: int, shape: Sequence[int]) -> Tensor:
    """Uninitialised (rows, *shape) in the memory order of `base`."""
    last = base.ndim == 4 and base.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((rows, *shape), dtype=base.dtype, device=base.device, memory_format=layout)

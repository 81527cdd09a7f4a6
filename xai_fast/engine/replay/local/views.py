"""Rules for steps that give the same elements another shape or order, as long as positions keep axes of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from xai_fast.graph.steps import Step, Value, values_in

from .boxes import Grid
from .rule import Border, Rule, Scene
from .windows import Sliding, windowed

_PRIMES = (1, 2, 3, 5, 7, 11, 13)  # extents that tell axes apart; the first is the row's


class View(Rule):
    """The same elements in another order, or some of them."""

    linear = True


class Reshaped(View):
    """A view of another shape; its extents along positions are those of the boxes.

    Args:
        before: the positions of the source.
        shape: for one row, without the row's axis.
    """

    def __init__(self, step: Step, grid: Grid, source: int, before: Grid, shape: Sequence[int]) -> None:
        super().__init__(step, grid, (source,))
        self._before, self._shape = before, tuple(shape)

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The region in the new shape."""
        (region,) = regions
        shape = list(self._shape)
        for axis, before in zip(self.grid.axes, self._before.axes, strict=True):
            shape[axis] = region.shape[before]
        return region.reshape(len(region), *shape)


def reshaped(step: Step, scene: Scene) -> Rule | None:
    """The rule of view, reshape, flatten, squeeze and their like, where they merge and split other axes only."""
    source = _source(step, scene)
    if source is None:
        return None
    before, shape = scene.shape(source), scene.shape(step.makes)
    if before is None or shape is None or not shape or shape[0] != 1 or math.prod(before) != math.prod(shape):
        return None
    grid = scene.grids[source]
    axes = []
    for axis, extent in zip(grid.axes, grid.extents, strict=True):
        ahead = math.prod(before[:axis])
        fits = [a for a in range(1, len(shape)) if shape[a] == extent and math.prod(shape[:a]) == ahead]
        if len(fits) != 1 or extent == 1:
            return None
        axes.append(fits[0] - len(shape))
    return Reshaped(step, Grid(tuple(axes), grid.extents), source, grid, shape[1:])


def permuted(step: Step, scene: Scene) -> Rule | None:
    """The rule of permute, transpose and their like."""
    source = _source(step, scene)
    shape = scene.shape(source) if source is not None else None
    if source is None or shape is None or not 2 <= len(shape) <= len(_PRIMES):
        return None
    grid = scene.grids[source]
    probe = torch.empty(_PRIMES[: len(shape)], device="meta")
    try:
        order = [_PRIMES.index(n) for n in step.run({**scene.fixed, source: probe}).shape]
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError):
        return None
    if sorted(order) != list(range(len(shape))) or order[0] != 0:
        return None
    axes = tuple(order.index(axis + len(shape)) - len(shape) for axis in grid.axes)
    return View(step, Grid(axes, grid.extents), (source,))


def indexed(step: Step, scene: Scene) -> Rule | None:
    """The rule of indexing with slices and numbers along axes without positions."""
    source = _source(step, scene)
    shape = scene.shape(source) if source is not None else None
    made = scene.shape(step.makes)
    if source is None or shape is None or made is None or len(step.args) != 2:
        return None
    index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
    index = tuple(_constant_slice(part, scene) for part in index)
    if values_in(index):
        return None
    if Ellipsis in index:
        at = index.index(Ellipsis)
        given = sum(part is not None and part is not Ellipsis for part in index)
        index = (*index[:at], *[slice(None)] * (len(shape) - given), *index[at + 1 :])
    positions = {axis + len(shape) for axis in scene.grids[source].axes} | {0}
    kept = _kept_axes(index, len(shape), positions)
    if kept is None:
        return spaced(step, scene, source, index)
    axes = tuple(kept.index(axis + len(shape)) - len(kept) for axis in scene.grids[source].axes)
    return View(step, Grid(axes, scene.grids[source].extents), (source,)) if len(kept) == len(made) else None


def spaced(step: Step, scene: Scene, source: int, index: tuple[Any, ...]) -> Rule | None:
    """The rule of slices along the axes of positions alone: a window of one position."""
    shape, grid = scene.shape(source), scene.grids[source]
    assert shape is not None
    axes = len(grid.extents)
    slices = [*index, *[slice(None)] * (len(shape) - len(index))]
    if not all(isinstance(part, slice) for part in slices) or any(part != slice(None) for part in slices[:-axes]):
        return None
    ranges = [range(*part.indices(extent)) for part, extent in zip(slices[-axes:], grid.extents, strict=True)]
    ones = (1,) * axes
    before = tuple(-r.start for r in ranges)
    sliding = Sliding(ones, tuple(r.step for r in ranges), before, ones, ones)

    def run(x: Tensor) -> Tensor:
        return x[(slice(None), slice(None), *[slice(None, None, r.step) for r in ranges])]

    return windowed(step, scene, source, sliding, run, Border(), bare=run)


def cut(step: Step, scene: Scene) -> Rule | None:
    """The rule of narrow, select, index_select and flip along an axis without positions: (input, axis, ...)."""
    source = _source(step, scene)
    shape, made = (scene.shape(source) if source is not None else None), scene.shape(step.makes)
    given = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", step.kwargs.get("dims"))
    dims = scene.constant(given)
    dims = dims if isinstance(dims, list | tuple) else (dims,)
    if source is None or shape is None or made is None or not all(isinstance(d, int) for d in dims):
        return None
    grid = scene.grids[source]
    along = {d % len(shape) - len(shape) for d in dims}
    if along & set(grid.axes) or -len(shape) in along:
        return None
    if len(made) == len(shape) - 1:
        grid = Grid(tuple(axis + sum(axis < gone for gone in along) for axis in grid.axes), grid.extents)
    elif len(made) != len(shape):
        return None
    return View(step, grid, (source,))


def _kept_axes(index: tuple[Any, ...], ndim: int, positions: set[int]) -> list[int] | None:
    """Which axes are left, -1 for new ones; None where the index touches positions or rows."""
    kept: list[int] = []
    axis = 0
    for part in index:
        if part is None:
            kept.append(-1)
            continue
        if axis in positions and part != slice(None):
            return None
        if isinstance(part, slice):
            kept.append(axis)
        elif not isinstance(part, int):
            return None
        axis += 1
    return kept + list(range(axis, ndim))


def _constant_slice(part: Any, scene: Scene) -> Any:
    if isinstance(part, slice):
        return slice(scene.constant(part.start), scene.constant(part.stop), scene.constant(part.step))
    return scene.constant(part)


def _source(step: Step, scene: Scene) -> int | None:
    """The one value that differs inside a box, if it is the first argument."""
    changed = [number for number in step.reads if number in scene.grids]
    first = step.args[0] if step.args else None
    return first.number if isinstance(first, Value) and changed == [first.number] else None

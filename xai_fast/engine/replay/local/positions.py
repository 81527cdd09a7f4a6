"""Rules for steps in which each position depends on the same position alone: functions, sums, channel mixing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from xai_fast.graph.fused import FusedLinear
from xai_fast.graph.operation import Kind, Region
from xai_fast.graph.operations import known_of
from xai_fast.graph.steps import Step, Value, values_in

from .arguments import taken
from .boxes import Grid, Spans, hull
from .rule import Rule, Scene

_Axes = tuple[tuple[int, ...], bool]
"""Some axes, and whether they are gone afterwards."""
_AxesOf = Callable[[Step, Scene, int], _Axes | None]
"""Reads the axes that a step works along off it, from (step, scene, axes of what it reads)."""


class Pointwise(Rule):
    """Any number of sources, brought to the union of their boxes."""

    def __init__(self, step: Step, grid: Grid, sources: Sequence[int], consumes: Sequence[int] = ()) -> None:
        super().__init__(step, grid, sources, consumes)
        numbers = [v.number for v in values_in((step.args, dict(step.kwargs)))]
        # If all that it reads differs inside boxes.
        self.linear = known_of(step.operation).differences and set(numbers) == set(sources)

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """The union of what may differ."""
        return hull(*spans)


class Part(Rule):
    """One tensor of a tuple, in the boxes of the tuple."""

    linear = True

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The part."""
        return regions[0][self.step.args[1]]


def elementwise(step: Step, scene: Scene) -> Rule | None:
    """The rule of a function of one tensor, with constant settings."""
    changed = [number for number in step.reads if number in scene.grids]
    if len(changed) != 1 or _tensors_beside(step, scene, changed[0]):
        return joined(step, scene) if step.kind is Kind.ELEMENTWISE else None
    return Pointwise(step, scene.grids[changed[0]], changed)


def channelwise(step: Step, scene: Scene) -> Rule | None:
    """The rule of a function with parameters per channel."""
    first = step.args[0] if step.args else None
    changed = [number for number in step.reads if number in scene.grids]
    if not isinstance(first, Value) or changed != [first.number]:
        return None
    grid = scene.grids[first.number]
    axes = len(grid.extents)
    standard = grid.axes == tuple(range(-axes, 0)) and len(scene.shape(first.number) or ()) == axes + 2
    if step.operation == "batch_norm" and _trains(step, scene):
        return None
    return Pointwise(step, grid, changed) if standard else None


def joined(step: Step, scene: Scene) -> Rule | None:
    """The rule of what combines tensors element by element, broadcasting included."""
    shape = scene.shape(step.makes)
    changed = [number for number in step.reads if number in scene.grids]
    grids = {scene.grids[number] for number in changed}
    if shape is None or len(grids) != 1:
        return None
    (grid,) = grids
    sources = []
    for number in step.reads:
        its = scene.shape(number)
        if number not in scene.grids and its is None:
            continue  # a number
        assert its is not None
        if number not in scene.grids and all(-axis > len(its) or its[axis] == 1 for axis in grid.axes):
            continue  # the same at every position
        constant = number not in scene.grids  # which may be the same along some of the axes
        if any(-a > len(its) or its[a] not in (n, constant) for a, n in zip(grid.axes, grid.extents, strict=True)):
            return None
        sources.append(number)
    if any(shape[axis] != extent for axis, extent in zip(grid.axes, grid.extents, strict=True)):
        return None
    return Pointwise(step, grid, sources)


def concatenated(step: Step, scene: Scene) -> Rule | None:
    """The rule of tensors laid side by side along an axis without positions."""
    found = taken_parts(step, scene)
    rule = joined(step, scene)
    if found is None or rule is None:
        return None
    dim, ndim = found
    shape = scene.shape(step.makes)
    assert shape is not None
    same = len(shape) == ndim and dim % ndim != 0 and dim % ndim - ndim not in rule.grid.axes
    whole = all(scene.shape(n) is not None and len(scene.shape(n) or ()) == ndim for n in rule.sources)
    every = set(rule.sources) == set(step.reads)  # nothing is broadcast here
    if not (same and every and whole):
        return None
    parts = step.args[0] if step.args else step.kwargs["tensors"]
    trait = scene.graph.traits[step.makes]
    if len(parts) == len(rule.sources) and trait.dtype is not None and trait.dtype.is_floating_point:
        rule.side_by_side = dim % ndim
    return rule


def taken_parts(step: Step, scene: Scene) -> tuple[int, int] | None:
    """(axis, axes of a part) of a concatenation."""
    parts = step.args[0] if step.args else step.kwargs.get("tensors")
    dim = scene.constant(step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", step.kwargs.get("axis", 0)))
    if not isinstance(parts, list | tuple) or not parts or not isinstance(dim, int):
        return None
    first = parts[0]
    shape = scene.shape(first.number) if isinstance(first, Value) else None
    return None if shape is None else (dim, len(shape))


def over_channels(along: _AxesOf, step: Step, scene: Scene) -> Rule | None:
    """The rule of what mixes, sums, normalises or splits along axes without positions.

    Args:
        along: reads those axes off the step.
        step: the step.
        scene: what is known before it.
    """
    first = step.args[0] if step.args else None
    if not isinstance(first, Value) or [n for n in step.reads if n in scene.grids] != [first.number]:
        return None
    grid, shape = scene.grids[first.number], scene.shape(first.number)
    found = along(step, scene, len(shape)) if shape is not None else None
    if found is None or shape is None:
        return None
    axes, dropped = found
    axes = tuple(axis % len(shape) - len(shape) for axis in axes)
    if -len(shape) in axes or set(axes) & set(grid.axes):
        return None
    made = scene.shape(step.makes)
    if dropped:
        grid = Grid(tuple(axis + sum(axis < gone for gone in axes) for axis in grid.axes), grid.extents)
    if made is not None and any(made[a] != n for a, n in zip(grid.axes, grid.extents, strict=True)):
        return None
    return Pointwise(step, grid, (first.number,))


def _dim(*names: str, default: Any = None) -> _AxesOf:
    """Axes given under "dim", with "keepdim" last, as reductions take them."""

    def read(step: Step, scene: Scene, ndim: int) -> _Axes | None:
        if step.module is not None:
            dim, keep = getattr(step.module, "dim", None), True
            return None if not isinstance(dim, int) else ((dim,), not keep)
        found = taken(step, scene, ("input", *names), {"dtype": None, "dim": default, **_REDUCING})
        if found is None or found["dim"] is None:
            return None
        dims = found["dim"] if isinstance(found["dim"], list | tuple) else [found["dim"]]
        if not all(isinstance(d, int) for d in dims):
            return None
        return tuple(dims), "keepdim" in names and not found["keepdim"]

    return read


_REDUCING = {"keepdim": False, "correction": None, "unbiased": None, "p": 2.0, "eps": 1e-12, "out": None,
             "_stacklevel": 3}  # fmt: skip


def _last(step: Step, scene: Scene, ndim: int) -> _Axes | None:
    """The last axis: linear layers with constant weights."""
    plain = isinstance(step.module, nn.Linear) or isinstance(step.call, FusedLinear)
    if plain or taken(step, scene, ("input", "weight", "bias"), {"bias": None}) is not None:
        return (-1,), False
    return None


def _normalised(step: Step, scene: Scene, ndim: int) -> _Axes | None:
    """The last axes, as many as the normalised shape has."""
    if step.module is not None:
        shape = getattr(step.module, "normalized_shape", None)
    else:
        names = ("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable")
        found = taken(step, scene, names, dict.fromkeys(names[2:]))
        shape = found["normalized_shape"] if found is not None else None
    return (tuple(range(-len(shape), 0)), False) if shape else None


def _responses(step: Step, scene: Scene, ndim: int) -> _Axes | None:
    """Local response normalisation works along axis 1."""
    names = ("input", "size", "alpha", "beta", "k")
    known = step.module is not None or taken(step, scene, names, dict.fromkeys(names[2:])) is not None
    return ((1,), False) if known else None


def _split(step: Step, scene: Scene, ndim: int) -> _Axes | None:
    """The axis of chunk, split and their like."""
    names = ("input", "count", "dim")
    renamed = {"chunks": "count", "split_size": "count", "split_size_or_sections": "count",
               "indices_or_sections": "count", "sections": "count", "axis": "dim"}  # fmt: skip
    kwargs = {renamed.get(name, name): value for name, value in step.kwargs.items()}
    found = taken(replace(step, kwargs=kwargs), scene, names, {"dim": 0})
    return ((found["dim"],), False) if found is not None and isinstance(found["dim"], int) else None


def _unbound(step: Step, scene: Scene, ndim: int) -> _Axes | None:
    found = taken(step, scene, ("input", "dim"), {"dim": 0})
    return ((found["dim"],), True) if found is not None else None


OVER_CHANNELS: dict[Region, Callable[[Step, Scene], Rule | None]] = {
    "mean": partial(over_channels, _dim("dim", "keepdim", "dtype")),
    "extremum": partial(over_channels, _dim("dim", "keepdim")),
    "deviation": partial(over_channels, _dim("dim", "unbiased", "keepdim", "correction")),
    "glu": partial(over_channels, _dim("dim", default=-1)),
    "softmax": partial(over_channels, _dim("dim", "_stacklevel", "dtype")),
    "cumulation": partial(over_channels, _dim("dim", "dtype")),
    "norm": partial(over_channels, _dim("p", "dim", "keepdim", "dtype")),
    "normalize": partial(over_channels, _dim("p", "dim", "eps", "out", default=1)),
    "last axis": partial(over_channels, _last),
    "last axes": partial(over_channels, _normalised),
    "channel window": partial(over_channels, _responses),
    "split": partial(over_channels, _split),
    "unbind": partial(over_channels, _unbound),
}


def part(step: Step, scene: Scene) -> Rule | None:
    """The rule of taking one tensor out of a tuple of them."""
    source = step.reads[0] if step.reads else -1
    index = step.args[1] if len(step.args) == 2 else None
    if source not in scene.grids or scene.shape(source) is not None or not isinstance(index, int):
        return None
    shape, grid = scene.shape(step.makes), scene.grids[source]
    if shape is None or any(shape[a] != n for a, n in zip(grid.axes, grid.extents, strict=True)):
        return None
    return Part(step, grid, (source,))


def _tensors_beside(step: Step, scene: Scene, changed: int) -> bool:
    """Whether a step of one changed tensor reads other tensors with more than one element."""
    others = [scene.shape(v.number) for v in values_in((step.args, dict(step.kwargs))) if v.number != changed]
    return any(shape is not None and math.prod(shape) > 1 for shape in others)


def _trains(step: Step, scene: Scene) -> bool:
    """Whether a batch normalisation uses the statistics of the batch."""
    if step.module is not None:
        return step.module.training or getattr(step.module, "running_mean", None) is None
    training = step.args[5] if len(step.args) > 5 else step.kwargs.get("training", False)
    return scene.constant(training) is not False

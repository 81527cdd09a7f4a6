"""Rules for pooling: the maximum or the mean of a window of positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.steps import Step

from .arguments import per_axis, taken
from .boxes import Boxes
from .rule import Border, Rule, Scene
from .windows import Sliding, Windowed, only_first, windowed

_MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEANS: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Averaged(Windowed):
    """An average whose divisor depends on how much of the window lies on the map.

    Args:
        divisors: per axis, the divisor of every output position.
    """

    divisors: tuple[Tensor, ...]

    def extras(self, own: Boxes) -> tuple[Tensor, ...]:
        """(rows, 1, *size), one over the divisors."""
        axes = len(own.size)
        product = torch.ones(len(own.at), 1, *own.size, dtype=torch.float64)
        for axis, (divisor, size) in enumerate(zip(self.divisors, own.size, strict=True)):
            index = (own.at[:, axis, None] + torch.arange(size)).clamp(0, len(divisor) - 1)
            product = product * divisor[index].view(-1, 1, *[size if a == axis else 1 for a in range(axes)])
        return (1 / product,)

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The sums over the windows, divided."""
        sums = self._call(*regions)
        return sums * extras[0].to(sums)

    def difference(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The same."""
        return self.apply(regions, extras, constants)


def maximum(step: Step, scene: Scene) -> Rule | None:
    """The rule of a max-pooling that returns values alone."""
    found = _pooling(step, scene, {"padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False})
    if found is None or found["return_indices"]:
        return None
    source, axes, extent, stride, padding = _window_of(step, scene, found)
    dilation, pool = per_axis(found["dilation"], axes), _MAXIMA[axes]
    sliding = Sliding(extent, stride, padding, padding, dilation)

    def run(x: Tensor) -> Tensor:
        return pool(x, extent, stride, 0, dilation)

    return windowed(step, scene, source, sliding, run, Border("constant", float("-inf")))


def mean(step: Step, scene: Scene) -> Rule | None:
    """The rule of an average pooling."""
    defaults = {"padding": 0, "ceil_mode": False, "count_include_pad": True, "divisor_override": None}
    found = _pooling(step, scene, defaults)
    if found is None:
        return None
    source, axes, extent, stride, padding = _window_of(step, scene, found)
    pool, ones = _MEANS[axes], (1,) * axes
    sliding = Sliding(extent, stride, padding, padding, ones)
    count, include = found["divisor_override"], found["count_include_pad"]
    uniform = not found["ceil_mode"] and (include or not any(padding))
    total = int(np.prod(extent))

    def run(x: Tensor) -> Tensor:
        # One axis has no override; a sum is the mean times the elements of a window.
        y = pool(x, extent, stride)
        return y if count is None and uniform else y * (total / (count or 1))

    kind = Windowed if count or uniform else Averaged
    rule = windowed(step, scene, source, sliding, run, Border(), kind=kind, bare=run)
    if isinstance(rule, Averaged):
        before = scene.grids[source].extents
        rule.divisors = tuple(
            _divisors(n, m, k, s, p, include=include)
            for n, m, k, s, p in zip(before, rule.grid.extents, extent, stride, padding, strict=True)
        )
    return rule


def _pooling(step: Step, scene: Scene, defaults: dict[str, Any]) -> dict[str, Any] | None:
    source = only_first(step, scene)
    if source is None or scene.shape(step.makes) is None:
        return None
    module = step.module
    if module is not None:
        found = {name: getattr(module, name, default) for name, default in defaults.items()}
        return {**found, "kernel_size": module.kernel_size, "stride": module.stride}
    names = ("input", "kernel_size", "stride", *defaults)
    return taken(step, scene, names, {"stride": None, **defaults})


def _window_of(step: Step, scene: Scene, found: dict[str, Any]) -> tuple[int, int, Any, Any, Any]:
    source = only_first(step, scene)
    assert source is not None
    axes = len(scene.grids[source].extents)
    extent = per_axis(found["kernel_size"], axes)
    stride = per_axis(found["stride"], axes) if found["stride"] not in (None, [], ()) else extent
    return source, axes, extent, stride, per_axis(found["padding"], axes)


def _divisors(extent: int, made: int, window: int, stride: int, padding: int, *, include: bool) -> Tensor:
    """By how much each sum along one axis is divided: windows are cut at the padding's edge, or at the map's."""
    start = torch.arange(made) * stride - padding
    stop = torch.minimum(start + window, torch.tensor(extent + padding))
    if not include:
        start, stop = start.clamp(min=0), stop.clamp(max=extent)
    return (stop - start).double()

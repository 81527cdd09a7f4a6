"""Rules for steps that move a window over positions: convolutions and padding; see `pooling` for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.fused import FusedConvolution, FusedResidual, Geometry, implementation_for
from xai_fast.graph.layout import PlainConv2d
from xai_fast.graph.steps import Step, Value

from .arguments import per_axis, taken
from .boxes import Boxes, Grid, Spans, clipped, hull
from .rule import Border, Rule, Scene

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MODES = {"zeros": "constant", "constant": "constant", "reflect": "reflect", "replicate": "replicate",
          "circular": "circular"}  # fmt: skip


@dataclass(frozen=True)
class Sliding:
    """How a window moves, per axis: `before` and `after` are the padding on either side."""

    extent: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> np.ndarray:
        """Positions from the first to the last one of a window."""
        return (np.asarray(self.extent) - 1) * np.asarray(self.dilation) + 1


class Windowed(Rule):
    """A window of one source moves over its positions; other sources are read where the output lies.

    Args:
        step: the step.
        grid: the positions of what it makes.
        sources: the source of the window first.
        sliding: how the window moves.
        before: the positions of the source.
        call: the step without padding, on the regions.
        bare: the same without a bias, in the dtype of the regions, where the step is linear.
        border: what is read beyond the edge.
        consumes: sources that are written into.
    """

    def __init__(
        self,
        step: Step,
        grid: Grid,
        sources: Sequence[int],
        sliding: Sliding,
        before: Grid,
        call: Callable[..., Tensor],
        border: Border,
        consumes: Sequence[int] = (),
        bare: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(step, grid, sources, consumes)
        self.sliding, self._before, self._call, self.border = sliding, before, call, border
        self._bare, self.linear = bare, bare is not None
        self.stays = False

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """Every window that touches a changed position, padding that mirrors one included."""
        moving = self.sliding
        first = _padded(spans[0], self._before.extents, moving, self.border.mode)
        stride = np.asarray(moving.stride)
        start = -((moving.reach - 1 - first[..., 0]) // stride)
        stop = np.where(first[..., 1] > first[..., 0], (first[..., 1] - 1) // stride + 1, start)
        return hull(clipped(start, stop, self.grid.extents), *spans[1:])

    def needs(self, own: Boxes) -> list[Boxes]:
        """The positions under the windows, in the coordinates of the source."""
        moving = self.sliding
        at = own.at * torch.tensor(moving.stride) - torch.tensor(moving.before)
        pairs = zip(own.size, moving.stride, moving.reach, strict=True)
        size = tuple(int((n - 1) * stride + reach) for n, stride, reach in pairs)
        return [Boxes(at, size), *(own for _ in self.sources[1:])]

    def worth(self) -> float:
        """Whole convolutions skip products with padding, which regions bring along."""
        moving, positions = self.sliding, 1.0
        for axis, extent in enumerate(self._before.extents):
            first = np.arange(self.grid.extents[axis]) * moving.stride[axis] - moving.before[axis]
            taps = first[:, None] + np.arange(moving.extent[axis]) * moving.dilation[axis]
            positions *= ((taps >= 0) & (taps < extent)).sum() / moving.extent[axis]
        return max(positions, 1.0)

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The step without padding."""
        return self._call(*regions)

    def difference(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The step without padding and bias."""
        assert self._bare is not None
        return self._bare(*regions)


def convolution(step: Step, scene: Scene) -> Rule | None:
    """The rule of a convolution: fused, by module, or by function with constant weights."""
    source = only_first(step, scene)
    if source is None:
        return None
    axes = len(scene.grids[source].extents)
    call: Any = step.call
    if isinstance(call, FusedConvolution | FusedResidual):
        return _fused(step, scene, source)
    found = _parameters(step, scene)
    if found is None:
        return None
    weight, bias, stride, padding, dilation, groups, mode = found
    if not isinstance(weight, Tensor) or weight.ndim != axes + 2:
        return None
    stride, dilation = per_axis(stride, axes), per_axis(dilation, axes)
    before, after = _sides(padding, tuple(weight.shape[2:]), dilation)
    plain, convolve = isinstance(step.module, PlainConv2d), _CONVOLUTIONS[axes]

    def run(x: Tensor) -> Tensor:
        return convolve(x.contiguous() if plain else x, weight, bias, stride, 0, dilation, groups)

    reduced: dict[torch.dtype, Callable[[Tensor], Tensor]] = {}

    def bare(x: Tensor) -> Tensor:
        if x.dtype not in reduced:
            reduced[x.dtype] = _bare(weight.detach().to(x.dtype), stride, dilation, groups)
        return reduced[x.dtype](x)

    sliding = Sliding(tuple(weight.shape[2:]), stride, before, after, dilation)
    return windowed(step, scene, source, sliding, run, Border(mode), bare=bare)


def _bare(
    weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Callable[[Tensor], Tensor]:
    """A convolution without bias and padding in half of the model's precision, fused steps' own where there are any."""
    implementation = implementation_for(weight.device, weight.dtype, reduced=True)
    if weight.ndim == 4 and implementation is not None:
        geometry = Geometry((stride[0], stride[1]), (0, 0), (dilation[0], dilation[1]), groups)
        if (source := implementation.convolution(weight, None, geometry, short_sums=False)) is not None:
            return source.forward
    convolve = _CONVOLUTIONS[weight.ndim - 2]
    return lambda x: convolve(x, weight, None, stride, 0, dilation, groups)


def _parameters(step: Step, scene: Scene) -> tuple[Any, ...] | None:
    """(weight, bias, stride, padding, dilation, groups, border mode) of a convolution."""
    module: Any = step.module
    if module is not None:
        mode = _MODES[str(module.padding_mode)]
        geometry = (module.stride, module.padding, module.dilation, module.groups)
        return module.weight, module.bias, *geometry, mode
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    found = taken(step, scene, names, {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1})
    return None if found is None else (*(found[name] for name in names[1:]), "constant")


def padded(step: Step, scene: Scene) -> Rule | None:
    """The rule of padding along positions."""
    source = only_first(step, scene)
    if source is None:
        return None
    axes = len(scene.grids[source].extents)
    module: Any = step.module
    if module is None:
        found = taken(step, scene, ("input", "pad", "mode", "value"), {"mode": "constant", "value": None})
        if found is None:
            return None
        pad, mode, value = found["pad"], found["mode"], found["value"]
    else:
        pad, value = module.padding, getattr(module, "value", 0.0)
        name = type(module).__name__
        mode = next((mode for word, mode in _PADDING_MODULES.items() if name.startswith(word)), None)
    if mode not in _MODES or not all(isinstance(n, int) for n in pad) or len(pad) > 2 * axes:
        return None
    sides = [*pad, *[0] * (2 * axes - len(pad))]  # from the last axis on
    before, after = tuple(sides[0::2][::-1]), tuple(sides[1::2][::-1])
    ones = (1,) * axes
    border = Border(_MODES[mode], float(value or 0.0))
    sliding = Sliding(ones, ones, before, after, ones)
    return windowed(step, scene, source, sliding, lambda x: x, border, bare=lambda x: x)


_PADDING_MODULES = {"Zero": "constant", "Constant": "constant", "Reflection": "reflect", "Replication": "replicate",
                    "Circular": "circular"}  # fmt: skip


def _fused(step: Step, scene: Scene, source: int) -> Rule | None:
    call = step.call
    assert isinstance(call, FusedConvolution | FusedResidual)
    geometry, weight = call.source.geometry, call.source.weight
    sliding = Sliding(tuple(weight.shape[2:]), geometry.stride, geometry.padding, geometry.padding, geometry.dilation)
    if isinstance(call, FusedConvolution):
        return windowed(step, scene, source, sliding, call.unpadded(), Border())
    other = step.args[1]
    if not isinstance(other, Value) or other.number not in scene.grids or other.number == source:
        return None
    return windowed(step, scene, source, sliding, call.unpadded(), Border(), also=other.number)


def windowed(
    step: Step,
    scene: Scene,
    source: int,
    sliding: Sliding,
    run: Callable[..., Tensor],
    border: Border,
    also: int | None = None,
    kind: type[Windowed] = Windowed,
    bare: Callable[..., Tensor] | None = None,
) -> Windowed | None:
    """The rule of a window over a value laid out (rows, C, *S); None for another layout."""
    before, shape = scene.grids[source], scene.shape(step.makes)
    axes = len(before.extents)
    standard = tuple(range(-axes, 0))
    inner = scene.shape(source)
    if before.axes != standard or shape is None or inner is None or not len(shape) == len(inner) == axes + 2:
        return None
    grid = Grid(standard, shape[2:])
    if also is None:
        return kind(step, grid, (source,), sliding, before, run, border, bare=bare)
    # The sum is made in the memory of what is added.
    return kind(step, grid, (source, also), sliding, before, run, border, consumes=(also,))


def only_first(step: Step, scene: Scene) -> int | None:
    """The first argument, if that is a value that differs inside a box."""
    first = step.args[0] if step.args else step.kwargs.get("input")
    return first.number if isinstance(first, Value) and first.number in scene.grids else None


def _sides(padding: Any, extent: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after, for numbers, "valid" and "same" (which pads the odd element at the end)."""
    if padding == "same":
        total = [(k - 1) * d for k, d in zip(extent, dilation, strict=True)]
        before = tuple(n // 2 for n in total)
        return before, tuple(n - b for n, b in zip(total, before, strict=True))
    both = per_axis(0 if padding == "valid" else padding, len(extent))
    return both, both


def _padded(spans: Spans, extents: Sequence[int], moving: Sliding, mode: str) -> Spans:
    """What may differ after padding: the positions themselves, and those outside that repeat them."""
    before = np.asarray(moving.before)
    own = spans + before[:, None]
    if mode == "constant":
        return np.where((spans[..., 1] > spans[..., 0])[..., None], own, 0)
    parts = [
        _repeated(spans[:, axis], extent, moving.before[axis], moving.after[axis], mode)
        for axis, extent in enumerate(extents)
    ]
    return np.stack(parts, axis=1)


def _repeated(span: np.ndarray, extent: int, before: int, after: int, mode: str) -> np.ndarray:
    """(R, 2): the hull of the padded positions that show one of the changed ones, along one axis."""
    position = np.arange(-before, extent + after)
    if mode == "replicate":
        shown = np.clip(position, 0, extent - 1)
    elif mode == "circular":
        shown = position % extent
    else:
        period = max(2 * (extent - 1), 1)
        shown = np.minimum(position % period, period - position % period)
    hit = (shown >= span[:, :1]) & (shown < span[:, 1:])
    start = hit.argmax(axis=1)
    stop = np.where(hit.any(axis=1), hit.shape[1] - hit[:, ::-1].argmax(axis=1), start)
    return np.stack([start, stop], axis=-1)

"""Rules for steps that change the density of positions: transposed convolution, interpolation, pixel shuffling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.steps import Step

from .arguments import per_axis, taken
from .boxes import Boxes, Grid, Spans, clipped, covering
from .rule import Rule, Scene
from .windows import only_first

_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Spread(Rule):
    """A transposed convolution: each position of the source is spread over a window of the output.

    Its boxes begin where the window of a source position does, so that all rows of a batch have one alignment.
    """

    linear = True

    def __init__(
        self,
        step: Step,
        grid: Grid,
        source: int,
        window: tuple[Sequence[int], Sequence[int], Sequence[int]],
        call: Callable[..., Tensor],
    ) -> None:
        super().__init__(step, grid, (source,))
        reach, stride, padding = (np.asarray(part) for part in window)
        self._reach, self._stride, self._padding, self._call = reach, stride, padding, call
        self.stays = False
        self._halo = (reach - 1) // stride  # source positions whose windows reach into the next one's

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """The windows of the changed positions."""
        (span,) = spans
        start = span[..., 0] * self._stride - self._padding
        stop = (span[..., 1] - 1) * self._stride - self._padding + self._reach
        return clipped(start, np.where(span[..., 1] > span[..., 0], stop, start), self.grid.extents)

    def place(self, spans: Spans, sources: Sequence[Boxes]) -> Boxes:
        """The windows of the source's boxes."""
        (source,) = sources
        at = source.at * torch.from_numpy(self._stride) - torch.from_numpy(self._padding)
        size = (np.asarray(source.size) - 1) * self._stride + self._reach
        return Boxes(at, tuple(int(n) for n in size))

    def needs(self, own: Boxes) -> list[Boxes]:
        """The source's boxes and the positions around them whose windows reach in."""
        first = (own.at + torch.from_numpy(self._padding)) // torch.from_numpy(self._stride)
        inner = (np.asarray(own.size) - self._reach) // self._stride + 1
        return [Boxes(first - torch.from_numpy(self._halo), tuple(int(n) for n in inner + 2 * self._halo))]

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The windows of the region, cut to the boxes."""
        return self._cut(regions[0], self._call(regions[0], biased=True))

    def difference(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The same without the bias."""
        return self._cut(regions[0], self._call(regions[0], biased=False))

    def _cut(self, region: Tensor, made: Tensor) -> Tensor:
        axes = len(self._stride)
        inner = np.asarray(region.shape[2:]) - 2 * self._halo
        size = (inner - 1) * self._stride + self._reach
        for axis in range(axes):
            made = made.narrow(2 + axis, int(self._halo[axis] * self._stride[axis]), int(size[axis]))
        return made


class Resampled(Rule):
    """A linear map along each axis of positions, such as interpolation.

    Args:
        matrices: per axis, (positions made, positions of the source).
    """

    linear = True

    def __init__(self, step: Step, grid: Grid, source: int, matrices: Sequence[Tensor]) -> None:
        super().__init__(step, grid, (source,))
        self.stays = False
        self._matrices = tuple(matrices)
        used = [matrix != 0 for matrix in matrices]
        self._first = [u.int().argmax(dim=1) for u in used]
        self._last = [u.shape[1] - u.flip(1).int().argmax(dim=1) for u in used]

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """Every position with a changed one among those that it mixes."""
        (span,) = spans
        parts = []
        for axis, (first, last) in enumerate(zip(self._first, self._last, strict=True)):
            hit = (first.numpy() < span[:, axis, 1:]) & (last.numpy() > span[:, axis, :1])
            hit &= span[:, axis, 1:] > span[:, axis, :1]
            start = hit.argmax(axis=1)
            stop = np.where(hit.any(axis=1), hit.shape[1] - hit[:, ::-1].argmax(axis=1), start)
            parts.append(np.stack([start, stop], axis=-1))
        return np.stack(parts, axis=1)

    def needs(self, own: Boxes) -> list[Boxes]:
        """From the first to the last position that is mixed in."""
        at, size = [], []
        for axis, (first, last) in enumerate(zip(self._first, self._last, strict=True)):
            index = own.at[:, axis, None] + torch.arange(own.size[axis])
            start, stop = first[index].amin(dim=1), last[index].amax(dim=1)
            at.append(start)
            size.append(int((stop - start).amax()))
        return [Boxes(torch.stack(at, dim=1), tuple(size))]

    def extras(self, own: Boxes) -> tuple[Tensor, ...]:
        """Per axis (rows, made, read), the part of the matrix between the boxes."""
        (read,) = self.needs(own)
        parts = []
        for axis, matrix in enumerate(self._matrices):
            rows = own.at[:, axis, None] + torch.arange(own.size[axis])
            columns = read.at[:, axis, None] + torch.arange(read.size[axis])
            inside = (columns < matrix.shape[1])[:, None, :]
            part = matrix[rows[:, :, None], columns.clamp(max=matrix.shape[1] - 1)[:, None, :]]
            parts.append(torch.where(inside, part, part.new_zeros(())))
        return tuple(parts)

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The matrices applied, one axis after the other."""
        (made,) = regions
        last = made.ndim == 4 and made.is_contiguous(memory_format=torch.channels_last)
        for axis, matrix in enumerate(extras):
            wide = matrix.to(made).view(len(made), *[1] * (made.ndim - 2), *matrix.shape[1:])
            moved = made.movedim(2 + axis, -1)[..., None, :]  # (rows, C, others, 1, read)
            made = (moved @ wide.mT).squeeze(-2).movedim(-1, 2 + axis)
        return made.contiguous(memory_format=torch.channels_last) if last else made


class Shuffled(Rule):
    """Channels become positions: each position becomes a block of them."""

    linear = True

    def __init__(self, step: Step, grid: Grid, source: int, factor: int) -> None:
        super().__init__(step, grid, (source,))
        self._factor = factor
        self.stays = type(self) is Shuffled

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """The blocks."""
        return spans[0] * self._factor

    def place(self, spans: Spans, sources: Sequence[Boxes]) -> Boxes:
        """The blocks of the source's boxes."""
        return Boxes(sources[0].at * self._factor, tuple(n * self._factor for n in sources[0].size))

    def needs(self, own: Boxes) -> list[Boxes]:
        """The positions that become the blocks."""
        return [Boxes(own.at // self._factor, tuple(n // self._factor for n in own.size))]


class Unshuffled(Shuffled):
    """Positions become channels: each block of them becomes one position."""

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """The blocks that are touched."""
        (span,) = spans
        start = span[..., 0] // self._factor
        stop = np.where(span[..., 1] > span[..., 0], -(-span[..., 1] // self._factor), start)
        return np.stack([start, stop], axis=-1)

    def place(self, spans: Spans, sources: Sequence[Boxes]) -> Boxes:
        """Within the map, of the size of the longest range."""
        return covering(spans, self.grid.extents)

    def needs(self, own: Boxes) -> list[Boxes]:
        """The blocks."""
        return [Boxes(own.at * self._factor, tuple(n * self._factor for n in own.size))]


def transposed(step: Step, scene: Scene) -> Rule | None:
    """The rule of a transposed convolution."""
    source, shape = _standard(step, scene), scene.shape(step.makes)
    if source is None or shape is None:
        return None
    axes = len(scene.grids[source].extents)
    module: Any = step.module
    if module is not None:
        if len(step.args) > 1 or step.kwargs or module.padding_mode != "zeros":
            return None
        weight, bias = module.weight, module.bias
        stride, padding, groups, dilation = module.stride, module.padding, module.groups, module.dilation
    else:
        names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
        defaults = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
        found = taken(step, scene, names, defaults)
        if found is None:
            return None
        weight, bias, stride, padding = found["weight"], found["bias"], found["stride"], found["padding"]
        groups, dilation = found["groups"], found["dilation"]
    if not isinstance(weight, Tensor) or weight.ndim != axes + 2:
        return None
    stride, padding, dilation = per_axis(stride, axes), per_axis(padding, axes), per_axis(dilation, axes)
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    spread = _TRANSPOSED[axes]

    def run(x: Tensor, *, biased: bool) -> Tensor:
        return spread(x, weight.to(x.dtype), bias if biased else None, stride, 0, 0, groups, dilation)

    return Spread(step, Grid(tuple(range(-axes, 0)), shape[2:]), source, (reach, stride, padding), run)


def interpolated(step: Step, scene: Scene) -> Rule | None:
    """The rule of interpolation and of adaptive average pooling to more than one position: linear along each axis."""
    source, shape, trait = _standard(step, scene), scene.shape(step.makes), scene.graph.traits[step.makes]
    if source is None or shape is None or len(step.reads) - sum(n in scene.fixed for n in step.reads) != 1:
        return None
    before = scene.grids[source].extents
    axes, grid = len(before), Grid(tuple(range(-len(before), 0)), shape[2:])
    matrices = []
    for axis, extent in enumerate(before):
        extents = [extent if a == axis else 1 for a in range(axes)]
        probe = torch.eye(extent, dtype=trait.dtype).view(1, extent, *extents)
        try:
            made = step.run({**scene.fixed, source: probe})
        except (RuntimeError, ValueError, TypeError, KeyError):
            return None
        for other in range(axes):
            made = made.narrow(2 + other, 0, 1) if other != axis else made
        matrices.append(made.reshape(extent, -1).T.contiguous())
    if [m.shape[0] for m in matrices] != list(grid.extents) or not all(m.isfinite().all() for m in matrices):
        return None
    if all(m.shape[0] == m.shape[1] and torch.equal(m, torch.eye(len(m), dtype=m.dtype)) for m in matrices):
        return Same(step, grid, (source,))
    if all(n == 1 for n in grid.extents):
        return None  # one position depends on all
    return Resampled(step, grid, source, matrices)


class Same(Rule):
    """A step that returns what it was given."""

    linear = True

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The region."""
        return regions[0]


def shuffled(step: Step, scene: Scene) -> Rule | None:
    """The rule of pixel shuffling, either way."""
    source, shape = _standard(step, scene), scene.shape(step.makes)
    if source is None or shape is None or len(shape) != 4:
        return None
    back = step.operation == "pixel_unshuffle"
    name = "downscale_factor" if back else "upscale_factor"
    found = {name: getattr(step.module, name)} if step.module is not None else taken(step, scene, ("input", name), {})
    if found is None or not isinstance(found[name], int):
        return None
    kind = Unshuffled if back else Shuffled
    return kind(step, Grid((-2, -1), shape[2:]), source, found[name])


def _standard(step: Step, scene: Scene) -> int | None:
    """The first argument, if it differs inside a box and is laid out (rows, C, *S)."""
    source = only_first(step, scene)
    if source is None:
        return None
    grid, shape = scene.grids[source], scene.shape(source)
    axes = len(grid.extents)
    fits = grid.axes == tuple(range(-axes, 0)) and shape is not None and len(shape) == axes + 2
    return source if fits else None

"""The input gradients of convolutions, as prepacked convolutions of the output's gradient.

With stride 1 that is a convolution with flipped kernels and channels the other way round. A 1x1 kernel with a stride
reaches every few positions only. A strided convolution of few channels, as in a stem, is computed for all
`stride x stride` phases of the input at once, since vector units would idle over three channels; of many channels, by
oneDNN's transposed convolution.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xai_fast.graph.fused.parts import Geometry, Strided
from xai_fast.graph.fused.public import Convolution

from .convolution import PackedConvolution, stretches

_FEW = 4  # channels of an input whose gradient is computed by phases
_BLOCK = 16  # input channels that oneDNN adds up at a time in the plain layout
_MOST_SHAPES = 4  # of inputs, for which something is packed


@dataclass(eq=False, repr=False)
class OneDnnConvolution(PackedConvolution):
    """A packed convolution with its input gradient.

    Attributes:
        short_sums: whether long sums of the gradient are cut into stretches, for networks without normalisation.
    """

    short_sums: bool = False

    def input_gradient(self, gradient: Tensor, shape: Sequence[int], there: Tensor | None) -> Tensor | Strided:
        """See `Convolution`."""
        return self.back(gradient, tuple(shape), there)

    def exact(self) -> Convolution:
        """The convolution in stretches so short that every sum is rounded as in the plain layout.

        Gradients turn on which side of a kink a ReLU's or a maximum's input falls, and scores do not, so that elsewhere
        stretches are longer. Without normalisation the inputs then fall to the same sides as in the caller's model.
        """
        channels, taps = self.weight.shape[1], self.weight[0, 0].numel()
        return self if self.geometry.groups > 1 or taps == 1 or channels % _BLOCK else self._exact

    @functools.cached_property
    def _exact(self) -> OneDnnConvolution:
        parts = self.weight.shape[1] // _BLOCK
        shortened = OneDnnConvolution(self.weight, self.bias, self.geometry, parts, short_sums=self.short_sums)
        shortened.back = self.back
        return shortened

    @functools.cached_property
    def back(self) -> AbstractInputGradient:
        """The fastest form of the input gradient."""
        geometry, kernel = self.geometry, self.weight.shape[2:]
        overlaps = all(d * (k - 1) >= p for d, k, p in zip(geometry.dilation, kernel, geometry.padding, strict=True))
        if geometry.stride == (1, 1) and overlaps:
            return Flipped(self, short_sums=self.short_sums)
        if tuple(kernel) == (1, 1) and geometry.padding == (0, 0):
            return Pointwise(self, short_sums=self.short_sums)
        if self.weight.shape[1] <= _FEW and geometry.groups == 1 and geometry.dilation == (1, 1):
            return Phased(self, short_sums=self.short_sums)
        return Transposed(self.weight, geometry)


class AbstractInputGradient(ABC):
    """One form of the input gradient of a convolution."""

    @abstractmethod
    def __call__(self, gradient: Tensor, shape: tuple[int, ...], there: Tensor | None) -> Tensor | Strided:
        """See `Convolution.input_gradient`."""


class Flipped(AbstractInputGradient):
    """Stride 1: the convolution with flipped kernels, added to what is there already in the same call.

    Args:
        source: the convolution.
        short_sums: whether long sums are cut into stretches.
    """

    def __init__(self, source: Convolution, *, short_sums: bool) -> None:
        geometry, kernel = source.geometry, source.weight.shape[2:]
        weight = _transposed(source.weight.detach(), geometry.groups)
        back = tuple(d * (k - 1) - p for d, k, p in zip(geometry.dilation, kernel, geometry.padding, strict=True))
        flipped = Geometry((1, 1), (back[0], back[1]), geometry.dilation, geometry.groups)
        parts = stretches(weight, geometry.groups) if short_sums else 1
        self._convolution = PackedConvolution(weight, None, flipped, parts, turned=tuple(kernel) != (1, 1))

    def __call__(self, gradient: Tensor, shape: tuple[int, ...], there: Tensor | None) -> Tensor:
        """See `Convolution.input_gradient`."""
        if there is None:
            return self._convolution.forward(gradient)
        return self._convolution.added(gradient, there, rectified=False, consumes=True)


class Pointwise(AbstractInputGradient):
    """A 1x1 kernel with a stride and no padding: a gradient at every few positions.

    Args:
        source: the convolution.
        short_sums: as in `Flipped`.
    """

    def __init__(self, source: Convolution, *, short_sums: bool) -> None:
        weight = _transposed(source.weight.detach(), source.geometry.groups)
        parts = stretches(weight, source.geometry.groups) if short_sums else 1
        flat = Geometry((1, 1), (0, 0), (1, 1), source.geometry.groups)
        self._convolution = PackedConvolution(weight, None, flat, parts)
        self._stride = source.geometry.stride

    def __call__(self, gradient: Tensor, shape: tuple[int, ...], there: Tensor | None) -> Strided:
        """See `Convolution.input_gradient`."""
        return Strided(self._convolution.forward(gradient), self._stride, shape)


class Phased(AbstractInputGradient):
    """A stride and few input channels: one convolution for all phases, whose channels are then laid out as positions.

    Args:
        source: the convolution, without groups and dilation.
        short_sums: as in `Flipped`.
    """

    def __init__(self, source: Convolution, *, short_sums: bool) -> None:
        self._source, self._short_sums = source, short_sums
        self._made: dict[tuple[int, ...], tuple[_Axis, _Axis, PackedConvolution]] = {}

    def __call__(self, gradient: Tensor, shape: tuple[int, ...], there: Tensor | None) -> Tensor:
        """See `Convolution.input_gradient`."""
        if shape not in self._made:
            if len(self._made) >= _MOST_SHAPES:
                self._made.pop(next(iter(self._made)))
            self._made[shape] = self._phases(shape)
        down, right, convolution = self._made[shape]
        rows, (channels, height, width) = len(gradient), shape
        phases = convolution.forward(gradient).narrow(2, down.first, down.count).narrow(3, right.first, right.count)
        phases = phases.unflatten(1, (len(down.taps), len(right.taps), channels))
        # (rows, down, right, C, y, x) to (rows, C, y * down, x * right)
        whole = phases.permute(0, 3, 4, 1, 5, 2).reshape(rows, channels, down.count * len(down.taps), -1)
        found = whole[:, :, :height, :width]
        return found if there is None else there.add_(found)

    def _phases(self, shape: tuple[int, ...]) -> tuple[_Axis, _Axis, PackedConvolution]:
        """How both axes read the output's gradient, and the convolution for inputs (C, H, W)."""
        geometry, weight = self._source.geometry, self._source.weight.detach()
        out, channels = weight.shape[:2]
        down, right = (
            _Axis.of(*sizes)
            for sizes in zip(shape[1:], weight.shape[2:], geometry.stride, geometry.padding, strict=True)
        )
        phases = weight.new_zeros(len(down.taps), len(right.taps), channels, out, down.kernel, right.kernel)
        for a, vertical in enumerate(down.taps):
            for b, horizontal in enumerate(right.taps):
                for y, from_y in vertical:
                    for x, from_x in horizontal:
                        phases[a, b, :, :, y, x] = weight[:, :, from_y, from_x].T
        weight = phases.flatten(0, 2)
        padded = Geometry((1, 1), (down.padding, right.padding), (1, 1), 1)
        return down, right, PackedConvolution(weight, None, padded, stretches(weight, 1) if self._short_sums else 1)


@dataclass(eq=False, repr=False)
class Transposed(AbstractInputGradient):
    """Any other convolution: oneDNN's transposed one, packed on demand for the gradients that come.

    Attributes:
        weight: (out, in / groups, h, w) of the convolution.
        geometry: of the convolution.
    """

    weight: Tensor
    geometry: Geometry
    _packed: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def __call__(self, gradient: Tensor, shape: tuple[int, ...], there: Tensor | None) -> Tensor:
        """See `Convolution.input_gradient`."""
        stride, padding, dilation = self.geometry.stride, self.geometry.padding, self.geometry.dilation
        left = [
            size - (s * (n - 1) - 2 * p + d * (k - 1) + 1)
            for size, s, n, p, d, k in zip(
                shape[1:], stride, gradient.shape[2:], padding, dilation, self.weight.shape[2:], strict=True
            )
        ]
        key = (*shape, min(len(gradient), 2))  # as in `PackedConvolution.packed`
        if key not in self._packed:
            if len(self._packed) >= _MOST_SHAPES:
                self._packed.pop(next(iter(self._packed)))
            weight = self.weight.detach().contiguous(memory_format=torch.channels_last)
            self._packed[key] = torch.ops.mkldnn._reorder_convolution_transpose_weight(
                weight, padding, left, stride, dilation, self.geometry.groups, list(gradient.shape)
            )
        found = torch.ops.mkldnn._convolution_transpose_pointwise(
            gradient, self._packed[key], None, padding, left, stride, dilation, self.geometry.groups, "none", [], ""
        )
        return found if there is None else there.add_(found)


def _transposed(weight: Tensor, groups: int) -> Tensor:
    """(out, in / groups, h, w) as (in, out / groups, h, w)."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class _Axis:
    """How the phases of one axis read the output's gradient.

    Attributes:
        taps: per phase of the input's positions, (place in the common kernel, place in the original one).
        kernel: extent of the common kernel.
        padding: with which it runs.
        first: of its results, the position of the first that belongs to the input.
        count: how many do.
    """

    taps: tuple[tuple[tuple[int, int], ...], ...]
    kernel: int
    padding: int
    first: int
    count: int

    @staticmethod
    def of(size: int, kernel: int, stride: int, padding: int) -> _Axis:
        # Position i = stride * j + phase is read by output j + d through tap i + padding - stride * (j + d).
        offsets = [
            {d: phase + padding - stride * d for d in range(-kernel, kernel + padding + 1)} for phase in range(stride)
        ]
        hits = [{d: tap for d, tap in phase.items() if 0 <= tap < kernel} for phase in offsets]
        every = [d for phase in hits for d in phase]
        low, high = min(every), max(every)
        count = -(-size // stride)
        outputs = (size + 2 * padding - kernel) // stride + 1
        room = max(-low, count + high - outputs, 0)
        taps = tuple(tuple((d - low, tap) for d, tap in phase.items()) for phase in hits)
        return _Axis(taps, high - low + 1, room, room + low, count)

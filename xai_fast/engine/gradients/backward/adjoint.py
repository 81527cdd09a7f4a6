"""The input gradients of convolutions, as prepacked convolutions of the output's gradient.

With stride 1 that is a convolution with flipped kernels and channels the other way round. A 1x1 kernel with a stride
reaches every few positions only. A strided convolution of few channels, as in a stem, is computed for all
`stride x stride` phases of the input at once, since vector units would idle over three channels; of many channels, by
oneDNN's transposed convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from xai_fast.graph.linear import FusedLinear
from xai_fast.graph.onednn import FusedConvolution, FusedResidual, Geometry, PackedWeight, stretches
from xai_fast.graph.transposed import PackedTransposed

from .gradients import Gradients, Held, Sparse

_FEW = 4  # channels of an input whose gradient is computed by phases
Adjoint = Callable[[Tensor, int, Gradients], None]
"""Adds the input's gradient, from the output's (rows, out, h, w), to the gradients of a value."""


class Flipped:
    """Stride 1: the convolution with flipped kernels, added to what is there already in the same call.

    Args:
        source: the convolution.
        short_sums: whether long sums are cut into stretches.
    """

    def __init__(self, source: PackedWeight, *, short_sums: bool) -> None:
        geometry, kernel = source.geometry, source.weight.shape[2:]
        weight = _transposed(source.weight.detach(), geometry.groups)
        back = tuple(d * (k - 1) - p for d, k, p in zip(geometry.dilation, kernel, geometry.padding, strict=True))
        flipped = Geometry((1, 1), (back[0], back[1]), geometry.dilation, geometry.groups)
        parts = stretches(weight, geometry.groups) if short_sums else 1
        packed = PackedWeight(weight, None, flipped, parts, turned=tuple(kernel) != (1, 1))
        self._alone, self._added = FusedConvolution(packed), FusedResidual(packed, rectified=False, consumes=True)

    def __call__(self, gradient: Tensor, value: int, gradients: Gradients) -> None:
        """See `Adjoint`."""
        there = gradients.place(value)
        if there is None:
            gradients.add(value, Held(self._alone(gradient)))
        else:
            there.tensor = self._added(gradient, there.tensor)


class Pointwise:
    """A 1x1 kernel with a stride and no padding: a gradient at every few positions.

    Args:
        source: the convolution.
        shape: (in, H, W).
        short_sums: as in `Flipped`.
    """

    def __init__(self, source: PackedWeight, shape: tuple[int, ...], *, short_sums: bool) -> None:
        weight = _transposed(source.weight.detach(), source.geometry.groups)
        parts = stretches(weight, source.geometry.groups) if short_sums else 1
        flat = Geometry((1, 1), (0, 0), (1, 1), source.geometry.groups)
        self._convolution = FusedConvolution(PackedWeight(weight, None, flat, parts))
        self._stride, self._shape = source.geometry.stride, shape

    def __call__(self, gradient: Tensor, value: int, gradients: Gradients) -> None:
        """See `Adjoint`."""
        gradients.add_sparse(value, Sparse(self._convolution(gradient), self._stride, self._shape))


class Phased:
    """A stride and few input channels: one convolution for all phases, whose channels are then laid out as positions.

    Args:
        source: the convolution, without groups and dilation.
        shape: (in, H, W).
        short_sums: as in `Flipped`.
    """

    def __init__(self, source: PackedWeight, shape: tuple[int, ...], *, short_sums: bool) -> None:
        geometry, weight = source.geometry, source.weight.detach()
        out, channels = weight.shape[:2]
        self._axes = tuple(
            _Axis.of(*sizes)
            for sizes in zip(shape[1:], weight.shape[2:], geometry.stride, geometry.padding, strict=True)
        )
        down, right = self._axes
        phases = weight.new_zeros(len(down.taps), len(right.taps), channels, out, down.kernel, right.kernel)
        for a, vertical in enumerate(down.taps):
            for b, horizontal in enumerate(right.taps):
                for y, from_y in vertical:
                    for x, from_x in horizontal:
                        phases[a, b, :, :, y, x] = weight[:, :, from_y, from_x].T
        weight = phases.flatten(0, 2)
        padded = Geometry((1, 1), (down.padding, right.padding), (1, 1), 1)
        parts = stretches(weight, 1) if short_sums else 1
        self._convolution = FusedConvolution(PackedWeight(weight, None, padded, parts))
        self._shape = shape

    def __call__(self, gradient: Tensor, value: int, gradients: Gradients) -> None:
        """See `Adjoint`."""
        down, right = self._axes
        rows, (channels, height, width) = len(gradient), self._shape
        phases = self._convolution(gradient).narrow(2, down.first, down.count).narrow(3, right.first, right.count)
        phases = phases.unflatten(1, (len(down.taps), len(right.taps), channels))
        # (rows, down, right, C, y, x) to (rows, C, y * down, x * right)
        whole = phases.permute(0, 3, 4, 1, 5, 2).reshape(rows, channels, down.count * len(down.taps), -1)
        gradients.add(value, Held(whole[:, :, :height, :width]))


class Transposed:
    """Any other convolution: oneDNN's transposed one.

    Args:
        source: the convolution.
        shape: (in, H, W).
    """

    def __init__(self, source: PackedWeight, shape: tuple[int, ...]) -> None:
        self._packed = PackedTransposed(source.weight, source.geometry, shape)

    def __call__(self, gradient: Tensor, value: int, gradients: Gradients) -> None:
        """See `Adjoint`."""
        gradients.add(value, Held(self._packed(gradient)))


class LinearAdjoint:
    """The input gradient of a linear layer: (..., out) to (..., in)."""

    def __init__(self, linear: FusedLinear) -> None:
        self._back = FusedLinear(linear.weight.detach().t(), None)

    def __call__(self, gradient: Tensor, value: int, gradients: Gradients) -> None:
        """See `Adjoint`."""
        gradients.add(value, Held(self._back(gradient)))


def adjoint_of(source: PackedWeight, shape: Sequence[int], *, short_sums: bool) -> Adjoint:
    """The fastest form of a convolution's input gradient.

    Args:
        source: the convolution.
        shape: (in, H, W) of its input.
        short_sums: whether long sums are cut into stretches, for networks without normalisation.
    """
    geometry, kernel, shape = source.geometry, source.weight.shape[2:], tuple(shape)
    overlaps = all(d * (k - 1) >= p for d, k, p in zip(geometry.dilation, kernel, geometry.padding, strict=True))
    if geometry.stride == (1, 1) and overlaps:
        return Flipped(source, short_sums=short_sums)
    if tuple(kernel) == (1, 1) and geometry.padding == (0, 0):
        return Pointwise(source, shape, short_sums=short_sums)
    if shape[0] <= _FEW and geometry.groups == 1 and geometry.dilation == (1, 1):
        return Phased(source, shape, short_sums=short_sums)
    return Transposed(source, shape)


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

"""Sliding windows: where they lie is a plan that needs no model, and each row hides one of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.ops import hide_windows, region_gather


@dataclass(frozen=True)
class Windows:
    """Boxes of one extent on a regular grid over an input; the last ones are cut at the border.

    Args:
        shape: (C, *S) of an input.
        window: extent per axis, channel axis first.
        stride: step per axis.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of windows along each axis: ceil((D − w) / s) + 1, less one that would begin beyond the border."""
        axes = zip(self.shape, self.window, self.stride, strict=True)
        return tuple(math.ceil(min(extent - window + stride, extent) / stride) for extent, window, stride in axes)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def boxes(self) -> Tensor:
        """LongTensor (W, 1 + len(S), 2), half-open [start, stop) per axis, the last axis fastest."""
        axes = [
            [(i * stride, min(i * stride + window, extent)) for i in range(count)]
            for extent, window, stride, count in zip(self.shape, self.window, self.stride, self.counts, strict=True)
        ]
        return torch.tensor(list(itertools.product(*axes)), dtype=torch.long)


@dataclass(frozen=True, eq=False)
class HiddenWindows:
    """Row r hides window r % W of input r // W: the box becomes the baseline.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        boxes: LongTensor (W, 1 + len(S), 2).
    """

    inputs: Tensor
    baseline: Tensor
    boxes: Tensor
    change: ClassVar[str] = "boxes"

    def __len__(self) -> int:
        return len(self.inputs) * len(self.boxes)

    def sample_of(self, rows: Tensor) -> Tensor:
        """Windows of one input follow each other."""
        return rows // len(self.boxes)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the inputs with their windows hidden."""
        hide_windows(self.inputs, self.baseline, self.sample_of(rows), self._boxes_of(rows), out)

    def spans(self) -> Tensor:
        """LongTensor (rows, A, 2): the windows along the axes of positions."""
        return self.boxes[:, 1:].repeat(len(self.inputs), 1, 1)

    def patch(self, rows: Tensor, at: Tensor, out: Tensor) -> None:
        """Writes the variants from the positions `at` (rows, A) on into `out` (rows, C, *s)."""
        boxes, sample = self._boxes_of(rows), self.sample_of(rows)
        inside = torch.zeros(0)
        for axis, size in enumerate(out.shape[1:]):
            first = at[:, axis - 1, None] if axis else torch.zeros_like(rows)[:, None]
            position = first + torch.arange(size, device=rows.device)
            hit = (position >= boxes[:, axis, :1]) & (position < boxes[:, axis, 1:])
            hit = hit.view(len(rows), *[size if a == axis else 1 for a in range(out.ndim - 1)])
            inside = inside & hit if axis else hit
        out.copy_(torch.where(inside.to(out.device), self._region(self.baseline, sample, at, out),
                              self._region(self.inputs, sample, at, out)))  # fmt: skip

    def unchanged(self) -> Tensor:
        """BoolTensor (rows,): in which rows the window already is the baseline."""
        differs = (self.inputs != self.baseline).cpu()
        sums = differs.to(torch.int32)
        for axis in range(1, sums.ndim):
            before = sums.new_zeros([1 if a == axis else n for a, n in enumerate(sums.shape)])
            sums = torch.cat([before, sums.cumsum(axis, dtype=torch.int32)], dim=axis)
        corners = itertools.product((0, 1), repeat=self.boxes.shape[1])
        count = torch.zeros(len(self.inputs), len(self.boxes), dtype=torch.int32)
        for corner in corners:
            index = [self.boxes[:, axis, side] for axis, side in enumerate(corner)]
            sign = (-1) ** (len(corner) - sum(corner))
            count += sign * sums[(slice(None), *index)]
        return (count == 0).flatten()

    def _boxes_of(self, rows: Tensor) -> Tensor:
        return beside(self.boxes, rows)[rows % len(self.boxes)]

    def _region(self, values: Tensor, sample: Tensor, at: Tensor, out: Tensor) -> Tensor:
        region = torch.empty(out.shape, dtype=values.dtype, device=values.device)
        return region_gather(values.expand_as(self.inputs), None, None, sample, at, region)


def per_axis(
    extent: int | Sequence[int], shape: Sequence[int], name: str, *, channels: int | None = None
) -> tuple[int, ...]:
    """An extent or stride in normal form, one per axis of an input (C, *S).

    Args:
        extent: an int or one per axis of S, which span the channels, or one per axis, channels first.
        shape: (C, *S).
        name: of the argument, for the message.
        channels: what stands for the channels where none is given; None means all of them.

    Raises:
        ValueError: neither one, nor one per axis.
    """
    axes = len(shape) - 1
    given = (extent,) * axes if isinstance(extent, int) else tuple(extent)
    if len(given) == axes:
        given = (channels or shape[0], *given)
    if len(given) != len(shape):
        raise ValueError(
            f"`{name}` {extent} does not fit inputs of shape {tuple(shape)}; give one int, "
            f"{axes} ints (over all channels), or {axes + 1} (channels first)"
        )
    return given


def check_extent(extent: Any, name: str) -> int | tuple[int, ...]:
    """An extent as an int or a tuple of ints, all at least 1.

    Raises:
        TypeError: not integers.
        ValueError: below 1.
    """
    several = isinstance(extent, Sequence) and not isinstance(extent, str)
    values: tuple[Any, ...] = tuple(extent) if several else (extent,)
    if not values or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise TypeError(f"`{name}` came as {extent!r}; give an int or a sequence of ints, in elements")
    if min(values) < 1:
        raise ValueError(f"`{name}` came as {extent!r}; give extents of at least 1")
    return values if several else values[0]

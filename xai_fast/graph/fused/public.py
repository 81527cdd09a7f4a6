"""Convolutions and linear layers of fused steps by torch's public operators: right on every device and in every dtype.

Other implementations are subclasses that replace what they do faster, and come back here for what they cannot take.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.graph.layout import LAYOUTS
from xai_fast.graph.processor import said
from xai_fast.graph.program import Program, Runs
from xai_fast.graph.steps import Graph

from .parts import NOTHING, Activation, Geometry, Strided


@dataclass(eq=False, repr=False)
class Convolution:
    """A convolution (rows, in, H, W) to (rows, out, h, w), forward and by its input.

    Attributes:
        weight: (out, in / groups, h, w).
        bias: (out,).
        geometry: how it moves.
    """

    weight: Tensor
    bias: Tensor | None
    geometry: Geometry

    @functools.cached_property
    def gain(self) -> tuple[float, float]:
        """See `gain`."""
        return gain(self.weight, self.bias)

    @property
    def kernels(self) -> Tensor:
        """The weight as it is used."""
        return self.weight

    @functools.cached_property
    def unpadded(self) -> Geometry:
        """The geometry without padding."""
        return replace(self.geometry, padding=(0, 0))

    def plain(self, x: Tensor, activation: Activation = NOTHING, *, pads: bool = True) -> Tensor:
        """As `forward`, by public operators whatever the implementation is; goes through autograd, and shows NaN."""
        geometry = self.geometry if pads else self.unpadded
        y = F.conv2d(x, self.kernels, self.bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
        return activation(y)

    def plain_added(self, x: Tensor, other: Tensor, *, rectified: bool, pads: bool = True) -> Tensor:
        """As `added`, by public operators whatever the implementation is."""
        y = self.plain(x, pads=pads).add_(other)
        return F.relu_(y) if rectified else y

    def forward(self, x: Tensor, activation: Activation = NOTHING, *, pads: bool = True) -> Tensor:
        """activation(convolution(x)); without padding where not `pads`, for regions that bring their surroundings."""
        return self.plain(x, activation, pads=pads)

    def added(self, x: Tensor, other: Tensor, *, rectified: bool, consumes: bool, pads: bool = True) -> Tensor:
        """convolution(x) + other, perhaps rectified; it may be written over `other` where it `consumes` that."""
        return self.plain_added(x, other, rectified=rectified, pads=pads)

    def input_gradient(self, gradient: Tensor, shape: Sequence[int], there: Tensor | None) -> Tensor | Strided:
        """The gradient by the input, from that by the output.

        Args:
            gradient: (rows, out, h, w).
            shape: (in, H, W) of the input.
            there: (rows, in, H, W) a gradient by the same input, channels-last, which may be written over; the result
                is added to it. None where there is none.
        """
        geometry, weight = self.geometry, self.kernels.detach()
        found = convolution_gradient(
            gradient, weight, shape, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
        )
        return found if there is None else there.add_(found)

    def exact(self) -> Convolution:
        """The same with as little rounding as in the plain layout, for networks without normalisation."""
        return self


@dataclass(eq=False, repr=False)
class Bottleneck(ABC):
    """Convolutions one behind the other, pointwise, depthwise and pointwise, forward in one call.

    Attributes:
        expand: the first, or None.
        depth: the second.
        project: the third, or None; one of the outer ones is there.
        activation: behind the first and the second.
    """

    expand: Convolution | None
    depth: Convolution
    project: Convolution | None
    activation: Activation

    @abstractmethod
    def takes(self, x: Tensor, other: Tensor | None = None) -> bool:
        """Whether it runs on these, in their memory and dtype, under the current grad mode."""

    @abstractmethod
    def forward(self, x: Tensor, other: Tensor | None = None, *, consumes: bool = False) -> Tensor:
        """`x` (rows, in, H, W) convolved, plus `other` (rows, out, h, w), in the memory of which if it `consumes` that.

        NaN and infinities show as they would without it.
        """

    @abstractmethod
    def squeezed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the first two make (rows, M, h, w), and its means over positions (rows, M), perhaps in a wider dtype."""

    @abstractmethod
    def gated(self, wide: Tensor, gate: Tensor, other: Tensor | None = None, *, consumes: bool = False) -> Tensor:
        """The third of what `squeezed` made times `gate` (rows, M); `other` and `consumes` as in `forward`."""


@dataclass(eq=False, repr=False)
class Linear:
    """A linear layer (..., in) to (..., out), forward and by its input.

    Attributes:
        weight: (out, in).
        bias: (out,).
    """

    weight: Tensor
    bias: Tensor | None

    @functools.cached_property
    def gain(self) -> tuple[float, float]:
        """See `gain`."""
        return gain(self.weight, self.bias)

    def plain(self, x: Tensor, activation: Activation = NOTHING) -> Tensor:
        """As `forward`, by public operators whatever the implementation is; goes through autograd, and shows NaN."""
        return activation(F.linear(x, self.weight, self.bias))

    def forward(self, x: Tensor, activation: Activation = NOTHING) -> Tensor:
        """activation(linear(x))."""
        return self.plain(x, activation)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient (..., in) by the input, from that (..., out) by the output."""
        return F.linear(gradient, self.weight.detach().t())


class PublicOperators:
    """Fused steps by public operators: on GPUs, whose libraries choose their own kernels.

    Attributes:
        name: under which `processor.assuming(implementation=...)` puts it in force.
        hides_nan: whether a fused step may answer an ordinary number for NaN, so that `care` is needed.
        regroups: whether large intermediates cost page faults, so that rows run in `stages`.
    """

    name = "public"
    hides_nan = False
    regroups = False

    def refusal(self, device: torch.device, dtype: torch.dtype, *, reduced: bool) -> str | None:
        """Why it does not run a model there; None where it does.

        Args:
            device: of the model.
            dtype: in which it runs.
            reduced: whether that is half of the model's own precision, for speed.
        """
        if device.type != "cuda" and said().implementation != self.name:
            return "separate steps are as fast there"
        return None

    def convolution(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, short_sums: bool
    ) -> Convolution | None:
        """A convolution; None where its step stays as it is.

        Args:
            weight: (out, in / groups, h, w).
            bias: (out,).
            geometry: how it moves.
            short_sums: whether long sums are to be rounded as in the plain layout.
        """
        return Convolution(weight, bias, geometry)

    def bottleneck(
        self, expand: Convolution | None, depth: Convolution, project: Convolution | None, activation: Activation
    ) -> Bottleneck | None:
        """What runs convolutions that follow each other as one; None where they stay apart. See `Bottleneck`."""
        return None

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear | None:
        """A linear layer, from weight (out, in) and bias (out,); None where its step stays as it is."""
        return Linear(weight, bias)

    def repeated(self, program: Program, graph: Graph) -> Runs:
        """What runs a fused program again and again with inputs of a few sizes: here the program itself.

        Args:
            program: without gradients.
            graph: of which it is a part, recorded.
        """
        return program


def convolution_gradient(
    gradient: Tensor,
    weight: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The gradient (rows, in, *S) of a convolution's input, of one to three axes, from that of its output.

    Args:
        gradient: (rows, out, *s).
        weight: (out, in / groups, *k); its memory says in which layout the gradient comes.
        shape: (in, *S).
        stride: per axis, as everything below.
        padding: with zeros.
        dilation: of the kernel.
        groups: of channels.
    """
    layout = LAYOUTS.get(gradient.ndim, torch.contiguous_format)
    layout = layout if weight.is_contiguous(memory_format=layout) else torch.contiguous_format
    # Of the input only shape and layout are looked at.
    blank = torch.empty((len(gradient), *shape), dtype=gradient.dtype, device=gradient.device, memory_format=layout)
    found, _, _ = torch.ops.aten.convolution_backward(
        *(gradient, blank, weight, None, stride, padding, dilation, False, [0] * len(stride), groups),
        [True, False, False],
    )
    return found


def gain(weight: Tensor, bias: Tensor | None) -> tuple[float, float]:
    """How much larger than its inputs a sum over products with `weight` (out, ...) can be, and the largest bias."""
    rows = weight.detach().flatten(1)
    sums = torch.linalg.vector_norm(rows, 1, dim=1) if rows.numel() else rows.new_zeros(1)
    return float(sums.max()), 0.0 if bias is None else float(bias.detach().abs().max())

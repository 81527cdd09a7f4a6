"""A pointwise, a depthwise and a pointwise convolution in our kernel, which keeps what lies between in the cache."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from xai_fast.graph.fused.parts import NOTHING, Activation
from xai_fast.graph.fused.public import Bottleneck, Convolution
from xai_fast.graph.processor import said
from xai_fast.ops import (
    BottleneckWeights,
    Repeated,
    all_ops,
    bottleneck_weights,
    gated_pointwise,
    inverted_bottleneck,
    register_panel,
)
from xai_fast.ops.inverted_bottleneck import SIDES, STRIDES

from .convolution import PackedConvolution, usable

_NAMES = {
    NOTHING: "none",
    Activation("relu"): "relu",
    Activation("hardtanh", (0.0, 6.0)): "relu6",
    Activation("silu"): "silu",
    Activation("hardswish"): "hardswish",
}
_PANEL = 32  # where the plain op is to stand in for a kernel


def _whole() -> Repeated:
    return Repeated(all_ops()["inverted_bottleneck"], inverted_bottleneck)


def _last() -> Repeated:
    return Repeated(all_ops()["gated_pointwise"], gated_pointwise)


@dataclass(eq=False, repr=False)
class KernelBottleneck(Bottleneck):
    """See `Bottleneck`: by `ops.inverted_bottleneck`."""

    _convolved: Repeated = field(default_factory=_whole)
    _squeezed: Repeated = field(default_factory=_whole)
    _gated: Repeated = field(default_factory=_last)

    @staticmethod
    def of(
        expand: Convolution | None, depth: Convolution, project: Convolution | None, activation: Activation
    ) -> KernelBottleneck | None:
        """What runs them; None where the kernel does not."""
        dtype = depth.weight.dtype
        if said().bottlenecks is False or not (register_panel(dtype) or said().bottlenecks):
            return None
        around = [source for source in (expand, project) if source is not None]
        pairs = dtype is torch.bfloat16 and expand is not None and expand.weight.shape[1] % 2
        half = (register_panel(dtype) or _PANEL) // 2
        narrow = expand is None and len(depth.weight) % half  # channels are read as they are
        fits = activation in _NAMES and _slides(depth) and all(map(_is_pointwise, around)) and not pairs and not narrow
        cut = any(isinstance(source, PackedConvolution) and source.parts > 1 for source in around)
        return KernelBottleneck(expand, depth, project, activation) if fits and around and not cut else None

    @functools.cached_property
    def _weights(self) -> BottleneckWeights:
        parts = [None if s is None else (s.kernels, s.bias) for s in (self.expand, self.depth, self.project)]
        assert parts[1] is not None
        return bottleneck_weights(parts[0], parts[1], parts[2], register_panel(self.depth.weight.dtype) or _PANEL)

    def takes(self, x: Tensor, other: Tensor | None = None) -> bool:
        """See `Bottleneck`."""
        if not all(value is None or usable(value, self.depth.weight.dtype) for value in (x, other)):
            return False
        if self._convolved.knows(x, other) or self._squeezed.knows(x, None):
            return True
        op = all_ops()["inverted_bottleneck"]
        return bool(said().bottlenecks) or op.compiled(x, *self._weights, other, x, None, 1, 0, "none")

    def forward(self, x: Tensor, other: Tensor | None = None, *, consumes: bool = False) -> Tensor:
        """See `Bottleneck`."""
        out = self._out(x, self._weights) if not (consumes and other is not None) else other
        return self._run(self._convolved, x, self._weights, other, out, None)

    def squeezed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Bottleneck`."""
        weights = self._weights._replace(project=None, project_bias=None)
        out = self._out(x, weights)
        means = x.new_empty(out.shape[:2], dtype=weights.depth.dtype)
        return self._run(self._squeezed, x, weights, None, out, means), means

    def gated(self, wide: Tensor, gate: Tensor, other: Tensor | None = None, *, consumes: bool = False) -> Tensor:
        """See `Bottleneck`."""
        assert self.project is not None
        weights, out = self._weights, other if consumes else None
        if out is None:
            shape = (len(wide), len(self.project.weight), *wide.shape[2:])
            out = torch.empty(shape, dtype=wide.dtype, memory_format=torch.channels_last)
        assert weights.project is not None
        assert weights.project_bias is not None
        gate = gate.to(weights.depth.dtype)
        self._gated((wide, gate, other), out, wide, gate, weights.project, weights.project_bias, other, out)
        return out

    def _out(self, x: Tensor, weights: BottleneckWeights) -> Tensor:
        geometry, source = self.depth.geometry, self.depth if weights.project is None else self.project
        assert source is not None
        (stride, _), (padding, _), side = geometry.stride, geometry.padding, self.depth.weight.shape[-1]
        size = [(extent + 2 * padding - side) // stride + 1 for extent in x.shape[2:]]
        return torch.empty((len(x), len(source.weight), *size), dtype=x.dtype, memory_format=torch.channels_last)

    def _run(
        self,
        run: Repeated,
        x: Tensor,
        weights: BottleneckWeights,
        other: Tensor | None,
        out: Tensor,
        means: Tensor | None,
    ) -> Tensor:
        geometry, name = self.depth.geometry, _NAMES[self.activation]
        run((x, other), out, x, *weights, other, out, means, geometry.stride[0], geometry.padding[0], name)
        return out


def _is_pointwise(source: Convolution) -> bool:
    return tuple(source.weight.shape[2:]) == (1, 1) and source.geometry == replace(
        source.geometry, stride=(1, 1), padding=(0, 0), groups=1
    )


def _slides(source: Convolution) -> bool:
    """Whether it is a depthwise convolution as the kernel knows them."""
    geometry, (channels, share, *sides) = source.geometry, source.weight.shape
    square = all(len(set(pair)) == 1 for pair in (geometry.stride, geometry.padding, sides))
    return (
        (share, geometry.groups, geometry.dilation) == (1, channels, (1, 1))
        and square
        and sides[0] in SIDES
        and geometry.stride[0] in STRIDES
        and geometry.padding[0] < sides[0]
    )

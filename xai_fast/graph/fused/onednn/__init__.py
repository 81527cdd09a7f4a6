"""Fused steps on the CPU: oneDNN's private operators, minimal filtering for 3x3 convolutions, and bottlenecks.

In float32, and in bfloat16 where that is what a float32 model was reduced to: minimal filtering rounds up to twice as
much as the direct sum there, which models that are bfloat16 themselves are spared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.graph.fused.parts import Activation, Geometry
from xai_fast.graph.fused.public import Bottleneck, Convolution, Linear, PublicOperators

from .bottleneck import KernelBottleneck
from .convolution import stretches
from .gradients import OneDnnConvolution
from .linear import PackedLinear
from .probe import failed

_DTYPES = (torch.float32, torch.bfloat16)


class OneDnn(PublicOperators):
    """oneDNN's fused operators; its ReLU answers 0 for NaN."""

    name = "onednn"
    hides_nan = True
    regroups = True

    def refusal(self, device: torch.device, dtype: torch.dtype, *, reduced: bool) -> str | None:
        """See `PublicOperators`."""
        if device.type != "cpu" or dtype is not (torch.bfloat16 if reduced else torch.float32):
            return "they run in float32 on the CPU, and in bfloat16 where a float32 model is reduced to that"
        return failed(dtype)

    def convolution(
        self, weight: Tensor, bias: Tensor | None, geometry: Geometry, *, short_sums: bool
    ) -> Convolution | None:
        """See `PublicOperators`."""
        depthwise = weight.shape[1] == 1 and geometry.groups > 1
        if weight.dtype not in _DTYPES or (depthwise and geometry.dilation != (1, 1)):
            return None  # what dilated depthwise ones take is not measured
        parts = stretches(weight, geometry.groups) if short_sums else 1
        return OneDnnConvolution(weight, bias, geometry, parts, short_sums=short_sums)

    def bottleneck(
        self, expand: Convolution | None, depth: Convolution, project: Convolution | None, activation: Activation
    ) -> Bottleneck | None:
        """See `PublicOperators`."""
        return KernelBottleneck.of(expand, depth, project, activation)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear | None:
        """See `PublicOperators`."""
        return PackedLinear(weight, bias) if weight.dtype in _DTYPES else None

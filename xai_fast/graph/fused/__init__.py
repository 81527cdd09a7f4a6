"""Fused steps, and the door for devices: what a fused step is, and which implementation runs it where.

`calls` has the steps that everything above knows (inputs, weights, activation, residual). What they compute is a
`Convolution` or a `Linear`: forward, and the gradient by the input. `public` does both with torch's public operators;
an implementation for a device overrides them and is entered in the table here, in order of preference.
"""

from __future__ import annotations

import torch

from xai_fast.graph.processor import said

from .calls import (
    FusedAttention,
    FusedBottleneck,
    FusedConvolution,
    FusedLinear,
    FusedResidual,
    FusedStep,
    PooledConvolution,
)
from .cuda import Cuda
from .onednn import OneDnn
from .parts import NOTHING, RELU, Activation, Geometry, Strided
from .public import Bottleneck, Convolution, Linear, PublicOperators, gain

__all__ = [
    "NOTHING",
    "RELU",
    "Activation",
    "Bottleneck",
    "Convolution",
    "FusedAttention",
    "FusedBottleneck",
    "FusedConvolution",
    "FusedLinear",
    "FusedResidual",
    "FusedStep",
    "Geometry",
    "Implementation",
    "Linear",
    "PooledConvolution",
    "Strided",
    "gain",
    "implementation_for",
]

Implementation = PublicOperators
"""What an implementation offers, of which others are subclasses."""
IMPLEMENTATIONS: tuple[Implementation, ...] = (OneDnn(), Cuda(), PublicOperators())


def implementation_for(device: torch.device, dtype: torch.dtype, *, reduced: bool = False) -> Implementation | None:
    """What runs fused steps of a model in that dtype on that device; None where its steps run as they are.

    Args:
        device: of the model.
        dtype: in which it runs.
        reduced: whether that is half of the model's own precision, for speed.
    """
    if said().fused is False:
        return None
    named = [each for each in IMPLEMENTATIONS if said().implementation in (None, each.name)]
    return next((each for each in named if each.refusal(device, dtype, reduced=reduced) is None), None)

"""Memory layouts of the prepared copy: channels-last, except where that would cost exactness."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
LONG_SUM = 1152  # products per output element, 128 channels of 3x3


class PlainConv2d(nn.Conv2d):
    """A convolution that runs in the plain layout whatever it is given."""

    def forward(self, input: Tensor) -> Tensor:
        """`input` (rows, in, H, W)."""
        return super().forward(input.contiguous())


def to_channels_last(module: nn.Module) -> None:
    """Lays out every convolution's weight channels-last, in place."""
    for parameter in module.parameters():
        if parameter.ndim in LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[parameter.ndim])


def keep_long_sums_plain(module: nn.Module) -> int:
    """Puts convolutions over many products back into the plain layout; returns how many.

    oneDNN sums a channels-last convolution in one float32 chain and a plain one in short chains: over 1152 products and
    more the first errs three to five times more. Where normalisation follows, its own rounding hides that (a ResNet's
    maps stay within twice the plain error), so this is for networks without any: a VGG's maps would be four times
    further from float64 than an unprepared model's.
    """
    count = 0
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.weight[0].numel() >= LONG_SUM:
            layer.weight.data = layer.weight.data.contiguous()
            layer.__class__ = PlainConv2d
            count += 1
    return count


def normalises(module: nn.Module) -> bool:
    """Whether any layer is a normalisation, by its name: torch has six kinds and libraries add theirs."""
    return any("Norm" in type(layer).__name__ for layer in module.modules())

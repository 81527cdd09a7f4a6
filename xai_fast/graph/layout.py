"""Memory layouts of the prepared copy: channels-last, except where that would cost exactness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

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

    On the CPU a channels-last convolution is summed in one float32 chain and a plain one in short chains: over 1152
    products and more the first errs three to five times more. Where normalisation follows, its own rounding hides that
    (a ResNet's maps stay within twice the plain error), so this is for networks without any: a VGG's maps would be four
    times further from float64 than an unprepared model's.
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


_aten = torch.ops.aten
_GROUPED = (
    F.group_norm,
    torch.group_norm,
    torch.native_group_norm,
    _aten.group_norm.default,
    _aten.native_group_norm.default,
)
_BATCHED = (F.batch_norm, torch.batch_norm, torch.native_batch_norm, _aten.batch_norm.default)


class ExactStatistics(TorchFunctionMode):
    """Normalisations that take statistics of what they are given run in the plain layout inside, and nothing else does.

    On the CPU torch takes the variance of a channels-last tensor as the mean of squares less the square of the mean.
    Where means are large next to deviations that errs five to two hundred times more than in the plain layout, in group
    normalisation and in batch normalisation without running statistics; other functions err alike in both.

    Attributes:
        met: whether there was any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Whatever function of torch's is called."""
        kwargs = kwargs or {}
        if not _takes_statistics(func, args, kwargs):
            return func(*args, **kwargs)
        self.met = True
        x = args[0] if args else kwargs["input"]
        layout = LAYOUTS.get(x.ndim) if isinstance(x, Tensor) else None
        if layout is None or x.is_contiguous() or not x.is_contiguous(memory_format=layout):
            return func(*args, **kwargs)
        plain = x.contiguous()
        made = func(plain, *args[1:], **kwargs) if args else func(**{**kwargs, "input": plain})
        if isinstance(made, Tensor):
            return made.contiguous(memory_format=layout)
        return type(made)([made[0].contiguous(memory_format=layout), *made[1:]])


def _takes_statistics(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if func in _GROUPED:
        return True
    return func in _BATCHED and bool(args[5] if len(args) > 5 else kwargs.get("training", False))

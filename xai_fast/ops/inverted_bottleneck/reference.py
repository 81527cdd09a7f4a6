"""inverted_bottleneck in plain torch: the specification."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
}


@torch.no_grad()
def inverted_bottleneck(
    inputs: Tensor,
    expand: Tensor | None,
    expand_bias: Tensor | None,
    depth: Tensor,
    depth_bias: Tensor,
    project: Tensor | None,
    project_bias: Tensor | None,
    other: Tensor | None,
    out: Tensor,
    means: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> None:
    """Convolution after convolution, in float32 where inputs are bfloat16."""
    activate, wide, middle = _ACTIVATIONS[activation], depth.dtype, len(depth_bias)
    side = round(depth.shape[1] ** 0.5)
    y = inputs.to(wide)
    if expand is not None:
        y = activate(F.conv2d(y, _weight(expand, wide)[:middle], expand_bias))
    taps = depth.mT.flatten(0, 1)[:middle].view(middle, 1, side, side)
    y = activate(F.conv2d(y, taps, depth_bias, stride, padding, groups=middle))
    if project is not None:
        y = F.conv2d(y.to(inputs.dtype).to(wide), _weight(project, wide)[:, :middle], project_bias)
    y = y[:, : out.shape[1]]
    if means is not None:
        means.copy_(y.mean(dim=(2, 3)))
    out.copy_(y if other is None else y + other)


def _weight(panels: Tensor, dtype: torch.dtype) -> Tensor:
    """(O / P, I / T, P, T) as (O, I, 1, 1)."""
    return panels.transpose(1, 2).flatten(2).flatten(0, 1)[:, :, None, None].to(dtype)

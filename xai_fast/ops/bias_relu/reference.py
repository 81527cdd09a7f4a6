"""bias_relu in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def bias_relu(values: Tensor, bias: Tensor, other: Tensor | None, out: Tensor) -> None:
    """In float32 or float64, rounded when it is written."""
    wide = torch.float64 if values.dtype is torch.float64 else torch.float32
    total = values.to(wide) + bias.to(wide).view(-1, *[1] * (values.dim() - 2))
    if other is not None:
        total += other.to(wide)
    out.copy_(total.relu_())

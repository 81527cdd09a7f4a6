"""relu_change in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def relu_change(base: Tensor, change: Tensor, sample: Tensor, at: Tensor, out: Tensor) -> None:
    """The part of each row's map is read position by position, and what the change makes of it is written."""
    height, width = change.shape[2:]
    rows = (at[:, 0, None] + torch.arange(height, device=at.device))[:, :, None]
    columns = (at[:, 1, None] + torch.arange(width, device=at.device))[:, None, :]
    kept = base.permute(0, 2, 3, 1)[sample[:, None, None], rows, columns].permute(0, 3, 1, 2)  # (M, C, h, w)
    out.copy_((kept + change.to(base.dtype)).relu() - kept.relu())

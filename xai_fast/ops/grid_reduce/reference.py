"""grid_reduce in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def grid_reduce(grids: Tensor, bin: Tensor, weights: Tensor, bins: Tensor) -> None:
    """Adds row after row; grids are (M, C), bins (B, T, C), and `bin` (M,) says which of them a row belongs to."""
    for row, index in enumerate(bin.tolist()):
        bins[index] += torch.where(grids[row], weights[row, :, None], 0.0)

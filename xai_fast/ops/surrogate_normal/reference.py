"""surrogate_normal in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def surrogate_normal(keep: Tensor, weights: Tensor, scores: Tensor, gram: Tensor, moment: Tensor) -> None:
    """Two products of matrices."""
    design = torch.cat([torch.ones_like(weights)[:, None], keep.to(torch.float64)], dim=1)
    weighted = weights[:, None] * design
    gram += weighted.T @ design
    moment += weighted.T @ scores

"""moments in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def moments(values: Tensor, weight: Tensor | None, group: Tensor, total: Tensor | None, squares: Tensor | None) -> None:
    """Adds row after row."""
    factors = [1.0] * len(values) if weight is None else weight.tolist()
    for row, (index, factor) in enumerate(zip(group.tolist(), factors, strict=True)):
        value = values[row].to(torch.float64)
        if total is not None:
            total[index] += factor * value
        if squares is not None:
            squares[index] += factor * value.square()

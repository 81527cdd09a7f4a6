"""Quadratures on [0, 1]: where an integrand is looked at, and what each look counts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

QUADRATURES = ("gausslegendre", "left", "right", "middle", "trapezoid")


def quadrature(name: str, n_steps: int) -> tuple[Tensor, Tensor]:
    """Nodes in [0, 1], ascending, and weights that sum to 1: both float64 (n_steps,).

    Args:
        name: "gausslegendre" is exact for polynomials up to degree 2n − 1; "left", "right" and "middle" take that point
            of n equal cells; "trapezoid" takes both ends and n − 2 points between them.
        n_steps: n, at least 1; at least 2 for "trapezoid".
    """
    if name == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    if name == "trapezoid":
        weights = torch.full((n_steps,), 1 / (n_steps - 1), dtype=torch.float64)
        weights[[0, -1]] /= 2
        return torch.linspace(0, 1, n_steps, dtype=torch.float64), weights
    offset = {"left": 0.0, "middle": 0.5, "right": 1.0}[name]
    nodes = (torch.arange(n_steps, dtype=torch.float64) + offset) / n_steps
    return nodes, torch.full((n_steps,), 1 / n_steps, dtype=torch.float64)

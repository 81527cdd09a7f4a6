"""The family's formulas: channel weights (rows, K, C) of activations (rows, C, *s), gradients (rows, K, C, *s)."""

from __future__ import annotations

from torch import Tensor


def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM: the mean of the gradient over positions (Selvaraju et al. 2017, equation 1)."""
    return gradient.flatten(3).mean(3)

"""The family's formulas: channel weights (rows, K, C) from a layer's response."""

from __future__ import annotations

from torch import Tensor

from xai_fast.engine.reducers.cam import Grid


def gradcam(response: Grid) -> Tensor:
    """Grad-CAM: the mean of the gradient over positions (Selvaraju et al. 2017, equation 1)."""
    assert response.gradient is not None
    return response.gradient.flatten(3).mean(3)


def ablation(response: Grid) -> Tensor:
    """Ablation-CAM: how far the score falls without the channel (Desai and Ramaswamy 2020), undivided."""
    assert response.falls is not None
    return response.falls

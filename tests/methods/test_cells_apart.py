"""A network that reads each class from one quarter of the image alone: what a method says of the others is made up.

The check of Rao et al. 2022 (arXiv:2205.10435, "DiFull"), with quarters that never meet before the class scores.
"""

import pytest
import torch
from torch import nn

import xai_fast as xf

SIDE = 32


class Apart(nn.Module):
    """Patches of 4 pixels that no convolution joins; the score of class k is read from quarter k."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.ReLU(), nn.Conv2d(12, 12, 1), nn.ReLU())
        self.fc = nn.Linear(12, 1)

    def forward(self, x):
        cells = nn.functional.adaptive_avg_pool2d(self.body(x), 2).flatten(2)
        return self.fc(cells.transpose(1, 2))[..., 0]


@pytest.fixture(scope="module")
def engine():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return xf.Engine(Apart().eval())


def share_outside(method):
    """Of the absolute values of all four classes' maps, how much lies in other quarters than the class's own."""
    inputs = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    maps = method.attribute(inputs, torch.arange(4).expand(2, 4), resolution="native").abs().sum(2)
    cells = maps.unflatten(3, (2, -1)).unflatten(2, (2, -1)).sum((3, 5)).flatten(2)  # (N, K, 4)
    assert (cells.sum((0, 2)) > 0).all(), "a class without a map tells nothing"
    return float((cells * (1 - torch.eye(4))).sum() / cells.sum())


NONE = {
    "Saliency": {},
    "InputXGradient": {},
    "IntegratedGradients": {"n_steps": 5},
    "SmoothGrad": {"n_samples": 3},
    "GuidedBackprop": {},
    "Deconvolution": {},
    "GuidedGradCAM": {"layer": "body.3"},
    "Occlusion": {"window": 8},
    "LayerCAM": {"layer": "body.3", "signed": True},
    "HiResCAM": {"layer": "body.3", "signed": True},
}


@pytest.mark.parametrize("name", NONE)
def test_nothing_is_said_of_what_the_class_cannot_see(engine, name):
    assert share_outside(xf.methods()[name].cls(engine, **NONE[name])) == 0


@pytest.mark.parametrize("name", ["GradCAM", "XGradCAM", "GradCAMPlusPlus", "AblationCAM", "EigenCAM"])
def test_weights_of_whole_channels_leak_into_other_cells(engine, name):
    """Their formulas' doing: a channel's weight holds wherever the channel fires."""
    assert 0.5 < share_outside(xf.methods()[name].cls(engine, layer="body.3")) < 0.9

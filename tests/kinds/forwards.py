"""Small networks whose forward is a plain function, and what plain PyTorch says of them in float64, a row at a time."""

from __future__ import annotations

import copy

import torch
from torch import nn

INPUTS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Forward(nn.Module):
    """Layers, and a function of (self, x) that is the forward."""

    def __init__(self, function, **layers):
        super().__init__()
        self._function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self._function(self, x)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x * 8) / 8

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def network(outputs=4):
    """Five layers: 0 a convolution, 1 its ReLU, 2 and 3 the mean over positions, 4 the classes."""
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)
    return nn.Sequential(*layers).eval()


def by_rows(call, inputs):
    """What a function of (1, C, H, W) says to every row alone, put together again."""
    return torch.cat([call(row[None]) for row in inputs])


def gradient(model, inputs=INPUTS, score=lambda output: output[:, 1]):
    """The gradient of the score by the input in float64, by autograd through the model itself, a row at a time."""
    model = copy.deepcopy(model).double().eval()

    def of_row(row):
        leaf = row.clone().requires_grad_()
        return torch.autograd.grad(score(model(leaf)).sum(), leaf)[0]

    return by_rows(of_row, inputs.double())


def error(found, truth):
    """The largest distance, as a share of the largest value."""
    return float((found.double() - truth.double()).abs().max() / truth.double().abs().max())

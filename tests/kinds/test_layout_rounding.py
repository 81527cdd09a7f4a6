"""The prepared copy rounds no worse than the plain model: its RMS error to float64 is within 2.5 times the plain one's.

Networks full of normalisations, of activations whose means are large next to their deviations, as trained ones have.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import xai_fast as xf


class Block(nn.Module):
    """Convolution, normalisation, ReLU, around a skip."""

    def __init__(self, channels, convolution, norm):
        super().__init__()
        self.norm, self.convolution = norm(channels), convolution(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(F.relu(self.norm(x)))


class Functional(nn.Module):
    """Group normalisation by the function, of the user's own weights."""

    def __init__(self, channels):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 4, self.gain, self.shift, 1e-5)


class Last(nn.Module):
    """Layer normalisation over channels, permuted."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ByHand(nn.Module):
    """Statistics of each map, by mean and var."""

    def __init__(self, channels):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        scale = torch.rsqrt(x.var(axes, unbiased=False, keepdim=True) + 1e-5)
        return (x - x.mean(axes, keepdim=True)) * scale * self.gain.view(-1, *[1] * len(axes))


NORMS = {
    "group": lambda axes: lambda c: nn.GroupNorm(4, c),
    "one group": lambda axes: lambda c: nn.GroupNorm(1, c),
    "group by function": lambda axes: Functional,
    "instance": lambda axes: lambda c: (nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 2](c, affine=True),
    "layer, permuted": lambda axes: Last,
    "by hand": lambda axes: ByHand,
}


class Net(nn.Module):
    """A stem, blocks and a head; `branches` makes a forward that no capture takes as a whole."""

    def __init__(self, axes, norm, *, branches=False):
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[axes - 2]
        self.stem = convolution(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(16, convolution, norm) for _ in range(3)))
        self.last, self.head, self.branches = norm(16), nn.Linear(16, 4), branches

    def forward(self, x: Tensor) -> Tensor:
        z = self.stem(x)
        if self.branches and float(z.detach().abs().sum()) < 0:
            return z.flatten(1)
        z = self.last(self.blocks(z))
        return self.head(F.relu(z - 0.5).flatten(2).mean(2))


def awakened(model):
    """Random affine parameters, and biases that give activations large means."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.copy_(torch.randn(value.shape, generator=generator))
        model.stem.bias.mul_(50)
    return model.eval()


def rms(value, truth):
    return float((value.double() - truth).square().mean().sqrt())


@pytest.mark.parametrize("branches", [False, True], ids=["captured", "not captured"])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_rounding(norm, axes, branches):
    torch.manual_seed(0)
    model = awakened(Net(axes, NORMS[norm](axes), branches=branches))
    inputs = torch.randn(12, 3, *(20, 20) if axes == 2 else (10, 10, 10))
    wide = copy.deepcopy(model).double()
    target = torch.zeros(len(inputs), 4, dtype=torch.long) + torch.arange(4)
    with torch.no_grad():
        truth, plain = wide(inputs.double()), model(inputs)
    actual = xf.Engine(model).scores(inputs, target)
    assert rms(actual, truth) <= 2.5 * rms(plain, truth)

    def gradient(network, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(network(x)[:, 1].sum(), x)[0]

    truth, plain = gradient(wide, inputs.double()), gradient(model, inputs)
    actual = xf.Saliency(model, absolute=False).attribute(inputs, target=1)
    assert rms(actual, truth) <= 2.5 * rms(plain, truth)


def _compiled_block(model):
    model.blocks[1] = torch.compile(model.blocks[1], backend="eager")
    return model


def _compiled_in_place(model):
    model.blocks.compile(backend="eager")
    return model


COMPILED = {
    "whole": lambda model: torch.compile(model, backend="eager"),
    "a block of it": _compiled_block,
    "in place": _compiled_in_place,
}


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
@pytest.mark.parametrize("how", COMPILED)
def test_what_is_compiled_rounds_like_what_is_not(how):
    """Normalisations are laid out by a mode of torch functions, which torch.compile has to see as well."""
    torch.manual_seed(0)
    model = awakened(Net(2, NORMS["group"](2)))
    inputs = torch.randn(4, 3, 20, 20)
    wide = copy.deepcopy(model).double()
    x = inputs.double().requires_grad_()
    (truth,) = torch.autograd.grad(wide(x)[:, 1].sum(), x)
    x = inputs.clone().requires_grad_()
    (plain,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    with torch.no_grad():
        scores, own = wide(inputs.double())[:, 1], model(inputs)[:, 1]
    engine = xf.Engine(COMPILED[how](copy.deepcopy(model)), prepare=True)
    assert rms(engine.scores(inputs, 1), scores) <= 2.5 * rms(own, scores)
    assert rms(xf.Saliency(engine, absolute=False).attribute(inputs, 1), truth) <= 2.5 * rms(plain, truth)

"""Where torch's own backward misreads how a gradient lies in memory, maps are those of the formula all the same."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from forwards import INPUTS, Forward, error, gradient
from torch import nn

import xai_fast as xf
from xai_fast.core import autograd


def tokens(self, x):
    """Normalised features (N, C, *s) as tokens (N, T, C): their gradient comes back with strides (C, 1, ., .)."""
    features = self.norm(self.shape(self.conv(x).relu())).flatten(2).transpose(1, 2)
    mixed = (features @ features.transpose(1, 2) / 8).softmax(-1) @ features
    return self.head((self.more(mixed).relu() * mixed).mean(1))


class Shaped(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.reshape(len(x), *self.shape)


class Written(nn.Module):
    """A normalisation in other operators."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        one = (1, -1, *[1] * (x.ndim - 2))
        mean, variance = getattr(self.norm, "running_mean", None), getattr(self.norm, "running_var", None)
        if mean is None:
            axes = [*range(2 if "Instance" in type(self.norm).__name__ else 0, x.ndim)]
            axes = [axis for axis in axes if axis != 1]
            mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
        else:
            mean, variance = mean.view(one), variance.view(one)
        return (x - mean) / (variance + self.norm.eps).sqrt() * self.norm.weight.view(one) + self.norm.bias.view(one)


NORMS = {
    "a grid": (nn.BatchNorm2d(8), (8, 4, 4)),
    "a column": (nn.BatchNorm2d(16), (16, 8, 1)),
    "a row": (nn.BatchNorm2d(16), (16, 1, 8)),
    "a volume": (nn.BatchNorm3d(8), (8, 4, 2, 2)),
    "a signal": (nn.BatchNorm1d(8), (8, 16)),
    "statistics of the batch": (nn.BatchNorm2d(8, track_running_stats=False), (8, 4, 4)),
    "statistics of the row": (nn.InstanceNorm2d(8, affine=True), (8, 4, 4)),
    "statistics of rows before": (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), (8, 4, 4)),
}


def network(name):
    torch.manual_seed(0)
    norm, shape = copy.deepcopy(NORMS[name])
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    if norm.running_mean is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    width = shape[0]
    layers = {"conv": nn.Conv2d(3, 8, 4, stride=4), "shape": Shaped(*shape), "norm": norm}
    return Forward(tokens, **layers, more=nn.Linear(width, width), head=nn.Linear(width, 3)).eval()


def written(model):
    other = copy.deepcopy(model)
    other.norm = Written(other.norm)
    return other


def branching(model):
    def forward(self, x):
        return tokens(self, x) if x.abs().max() < 1e9 else self.head(x)

    model._function = forward
    return model


class Uncopyable(Forward):
    def __deepcopy__(self, memo):
        raise TypeError("there is only one of me")


WAYS = {
    "as it is": lambda model: model,
    "resists capture": branching,
    "cannot be copied": lambda model: Uncopyable(tokens, **dict(model.named_children())).eval(),
    "traced": lambda model: torch.jit.trace(model, INPUTS[:1]),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning", "ignore:rows of a batch depend")
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_that_lies_as_tokens_is_read_as_it_lies(name, way):
    model = network(name)
    truth = gradient(written(model), INPUTS[:1])
    model = WAYS[way](model)
    for plan in ("auto", "dense"):
        engine = xf.Engine(model, plan=plan, output=lambda raw: raw)
        assert error(xf.Saliency(engine, absolute=False).attribute(INPUTS[:1], target=1), truth) <= 1e-4, plan


@pytest.mark.parametrize(
    "make",
    [
        lambda net: xf.GradCAM(net, layer="conv"),
        lambda net: xf.ShapleyCAM(net, layer="conv"),
        lambda net: xf.GradCAMPlusPlus(net, layer="conv"),
        lambda net: xf.GuidedBackprop(net),
        lambda net: xf.IntegratedGradients(net, n_steps=3, layer="conv"),
        lambda net: xf.SmoothGrad(net, n_samples=2),
        lambda net: xf.DeepLift(net, baselines=torch.zeros(1, 3, 16, 16)),
    ],
)
def test_every_way_to_ask_for_gradients_reads_them_as_they_lie(make):
    model = network("a grid").double()
    model._function = plainer  # DeepLift's rule has no product of two that change
    inputs = INPUTS[:1].double()
    found, truth = (make(net).attribute(inputs, target=1) for net in (model, written(model)))
    assert error(found, truth) <= 1e-9


def plainer(self, x):
    features = self.norm(self.shape(self.conv(x).relu())).flatten(2).transpose(1, 2)
    weight = torch.arange(features.shape[1], dtype=x.dtype).view(-1, 1)
    return self.head((self.more(features).relu() * weight).mean(1))


@pytest.mark.parametrize("row", [(1, 4, 2, 3), (2, 4, 1, 3), (1, 4, 2, 1), (1, 4, 2, 1, 3)])
def test_strides_of_axes_of_one_element_say_nothing(row):
    x, arriving = torch.randn(2, *row, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight, mean, variance = torch.rand(3, 4, dtype=torch.float64) + 0.5
    first, last = range(len(row)), (0, *range(2, len(row)), 1)
    back = [last.index(axis) for axis in first]
    one = (1, 4, *[1] * (len(row) - 2))

    def layouts(values):
        for dense in (values, values.permute(last).contiguous().permute(back)):
            for stride in (1, 4, 1000):
                found = [stride if n == 1 else step for n, step in zip(row, dense.stride(), strict=True)]
                yield dense.as_strided(row, found)

    truth = arriving * (weight / (variance + 1e-5).sqrt()).view(one)
    for values in layouts(x):
        leaf = values.detach().requires_grad_()
        for given in layouts(arriving):
            normal = nn.functional.batch_norm(leaf, mean, variance, weight)
            (found,) = autograd.grad(normal, leaf, given)
            assert error(found, truth) <= 1e-12, (values.stride(), given.stride())


def test_gradients_are_taken_in_one_place():
    root = Path(xf.__file__).parent
    found = {
        str(file.relative_to(root))
        for folder in ("core", "engine", "graph", "methods")
        for file in (root / folder).rglob("*.py")
        if "torch.autograd.grad(" in file.read_text().replace("return behind(torch.autograd.grad(outputs, cast(", "")
    }
    assert not found, "ask `core.autograd.grad`, which knows where torch misreads"

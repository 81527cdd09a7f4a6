"""Rows of a batch that depend on each other are found, and then every row runs alone, whatever the batch size says."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from forwards import INPUTS, Forward, by_rows, error, network
from torch import nn
from torch.nn import functional as F

import xai_fast as xf


class ScaledByTheBatch(nn.Module):
    """Rounds as dynamic quantisation to eight bits does: the step is told by the largest value of the whole batch."""

    def forward(self, x):
        step = x.abs().amax() / 127
        return torch.round(x / step) * step


def statistics(layer):
    return nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def through(change):
    return Forward(lambda self, x: self.n(change(x)), n=network())


def attending(self, x):
    rows = self.n[:4](x)[None]
    return self.n[4](F.scaled_dot_product_attention(8 * rows, 8 * rows, rows)[0])


MIXED = {
    "batch statistics": lambda: statistics(nn.BatchNorm2d(8, track_running_stats=False)),
    "dynamic scale": lambda: statistics(ScaledByTheBatch()),
    "spread of the batch": lambda: through(lambda x: x / (x.std() + 0.1)),
    "largest of the batch": lambda: through(lambda x: x / (x.abs().max() + 0.1)),
    "the first row": lambda: through(lambda x: x - 0.5 * x[:1]),
    "the last row": lambda: through(lambda x: x - 0.5 * x[-1:]),
    "the row before": lambda: through(lambda x: x + x.roll(1, 0)),
    "running sum": lambda: through(lambda x: x.cumsum(0)),
    "how many rows": lambda: Forward(lambda self, x: self.n(x) * len(x), n=network()),
    "attention over rows": lambda: Forward(attending, n=network()),
    "one row only": lambda: through(lambda x: x.view(1, 3, 16, 16)),
}


def questions(model):
    """Methods of every kind of question, few rows each."""
    yield xf.Occlusion(model, window=8)
    yield xf.Saliency(model, absolute=False)
    yield xf.IntegratedGradients(model, n_steps=3)
    yield xf.RISE(model, n_masks=8)


@pytest.mark.parametrize("batch_size", ["auto", 5])
@pytest.mark.parametrize("name", MIXED)
def test_every_row_runs_alone(name, batch_size):
    model = MIXED[name]().eval()
    with torch.no_grad():
        alone = by_rows(copy.deepcopy(model).double(), INPUTS.double())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        engine = xf.Engine(model, batch_size=batch_size)
        assert error(engine.scores(INPUTS, 1), alone[:, 1]) <= 1e-5
        for method in questions(engine):
            together = method.attribute(INPUTS, target=1)
            single = by_rows(lambda row, method=method: method.attribute(row, target=1), INPUTS)
            assert torch.equal(together, single), method
    about = [str(warning.message) for warning in said if "rows of a batch depend on each other" in str(warning.message)]
    assert len(about) == 1
    text = engine.explain_plan(xf.Occlusion(engine, window=8), INPUTS)
    assert "rows per forward: 1" in text
    assert "every row runs alone" in text


@pytest.mark.filterwarnings("ignore:rows of a batch")
def test_maps_are_those_of_the_model_one_row_at_a_time():
    model = MIXED["spread of the batch"]().eval()
    twin = copy.deepcopy(model).double()
    hidden = INPUTS.double().clone()
    hidden[:, :, 8:, 8:] = 0
    with torch.no_grad():
        falls = (by_rows(twin, INPUTS.double()) - by_rows(twin, hidden))[:, 1]
    assert error(xf.Occlusion(model, window=8).attribute(INPUTS, target=1)[:, 0, 15, 15], falls) <= 1e-4


@pytest.mark.filterwarnings("ignore:rows of a batch")
def test_a_layers_path_runs_point_by_point():
    model = MIXED["batch statistics"]().eval()
    method = xf.IntegratedGradients(model, n_steps=4, layer="0")
    found = method.attribute(INPUTS[:1], target=1)
    forward = copy.deepcopy(model).double()
    nodes, weights = (
        torch.tensor([0.0694318442, 0.3300094782, 0.6699905218, 0.9305681558]),
        [0.1739274226, 0.3260725774],
    )
    with torch.no_grad():
        activation, start = forward[0](INPUTS[:1].double()), forward[0](torch.zeros(1, 3, 16, 16).double())
    total = torch.zeros_like(activation)
    for node, weight in zip(nodes.double(), [*weights, *weights[::-1]], strict=True):
        point = torch.lerp(start, activation, node).requires_grad_()
        total += weight * torch.autograd.grad(forward[1:](point)[0, 1], point)[0]
    assert error(found, (activation - start) * total) <= 1e-4


@pytest.mark.filterwarnings("ignore:rows of a batch")
def test_a_callable_and_a_model_that_cannot_be_copied_are_told_as_well():
    inner = MIXED["spread of the batch"]().eval()
    with torch.no_grad():
        alone = by_rows(inner, INPUTS)[:, 1]
    assert error(xf.Engine(lambda x: inner(x)).scores(INPUTS, 1), alone) <= 1e-6
    inner.keeps = (number for number in range(3))  # a generator cannot be copied
    assert error(xf.Engine(inner).scores(INPUTS, 1), alone) <= 1e-6


UNMIXED = {
    "plain": network,
    "squeezed": lambda: Forward(lambda self, x: self.n(x).squeeze(), n=network()),
    "statistics of each row": lambda: statistics(nn.InstanceNorm2d(8)),
    "rows last": lambda: Forward(lambda self, x: self.n(x).T, n=network()),
    "an object for each row": lambda: Forward(lambda self, x: [{"scores": row} for row in self.n(x)], n=network()),
}


@pytest.mark.parametrize("name", UNMIXED)
def test_rows_that_do_not_mix_run_together(name):
    model = UNMIXED[name]().eval()

    def scores(output):
        if isinstance(output, list):
            return torch.stack([entry["scores"] for entry in output])
        output = output.T if name == "rows last" else output
        return output.reshape(-1, 4)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = xf.Engine(model, output=scores)
        engine.scores(INPUTS, 1)
        assert "every row runs alone" not in engine.explain_plan(xf.Occlusion(engine, window=8), INPUTS)

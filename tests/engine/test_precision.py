"""What "fast" and "turbo" do to models of every dtype, where halves pay and where they do not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast.graph.processor import assuming

SETTINGS = {
    "Occlusion": (xf.Occlusion, {"window": 3, "stride": 2}),
    "KernelShap": (xf.KernelShap, {"segments": torch.arange(64).view(8, 8) % 7, "n_samples": 64, "tolerance": 1e-9}),
    "RISE": (xf.RISE, {"n_masks": 40, "cells": 3, "tolerance": 1e-9}),
    "IntegratedGradients": (xf.IntegratedGradients, {"n_steps": 4}),
    "GradCAM": (xf.GradCAM, {"layer": "0"}),
}


@pytest.fixture(params=[True, False], ids=["halves pay", "halves do not pay"], autouse=True)
def halves(request):
    with assuming(halves=request.param):
        yield request.param


def network(dtype=torch.float32):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(72, 5)).eval().to(dtype)


class Part(nn.Module):
    """A network of which a part is more exact than the rest."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.body, self.scale = kind, network()[:5], nn.Parameter(torch.linspace(1, 2, 72))
        self.last = nn.Linear(72, 5)
        if kind == "last layer":
            self.last.double()
        if kind == "buffer":
            self.register_buffer("shift", torch.linspace(0, 1, 72, dtype=torch.float64))

    def forward(self, x):
        x = self.body(x) * self.scale
        if self.kind == "last layer":
            return self.last(x.double())
        if self.kind == "buffer":
            return self.last((x + self.shift).float())
        return nn.functional.linear(x.double(), self.last.weight.double())


def maps(model, mode, method, settings, inputs):
    return method(xf.Engine(model, mode=mode), **settings).attribute(inputs, 1)


@pytest.mark.parametrize("mode", ["fast", "turbo"])
@pytest.mark.parametrize(("method", "settings"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_models_that_are_not_float32_stay_what_they_are(dtype, method, settings, mode):
    model, inputs = network(dtype), torch.randn(2, 3, 8, 8).to(dtype)
    assert maps(model, mode, method, settings, inputs).equal(maps(network(dtype), "exact", method, settings, inputs))


@pytest.mark.parametrize("kind", ["last layer", "buffer", "output"])
@pytest.mark.parametrize(("method", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_models_that_are_float64_in_part_stay_what_they_are(kind, method, settings):
    settings = {**settings, "layer": "body.0"} if "layer" in settings else settings
    model, inputs = Part(kind).eval(), torch.randn(2, 3, 8, 8)
    assert maps(model, "fast", method, settings, inputs).equal(
        maps(Part(kind).eval(), "exact", method, settings, inputs)
    )


@pytest.mark.parametrize("mode", ["fast", "turbo"])
def test_float32_is_halved_where_it_pays(halves, mode):
    engine, inputs = xf.Engine(network(), mode=mode), torch.randn(2, 3, 8, 8)
    half = engine.prepared(frozenset(), inputs)
    assert half.dtype is (torch.bfloat16 if halves else torch.float32)
    assert engine.prepared(frozenset(), inputs, exact=True).dtype is torch.float32
    truth = network().double()(inputs.double()).detach()
    torch.testing.assert_close(engine.scores(inputs, 1).double(), truth[:, 1], rtol=0, atol=0.03 * truth.abs().max())


class Stubborn(nn.Module):
    """A network that half precision would break: it mixes in a constant of its own, or leaves the range."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.body = kind, network()

    def forward(self, x):
        y = self.body(x)
        if self.kind == "refuses":
            return y @ torch.eye(5, dtype=torch.float64 if y.dtype is torch.float64 else torch.float32)
        return (y + 1e4) - 1e4 if self.kind == "cancels" else torch.fft.rfft(y).real


@pytest.mark.parametrize("kind", ["refuses", "cancels", "lacks the operation"])
def test_what_half_precision_would_break_runs_in_single(kind):
    model, inputs = Stubborn(kind).eval(), torch.randn(2, 3, 8, 8)
    truth = Stubborn(kind).eval().double()(inputs.double()).detach()[:, 1]
    torch.testing.assert_close(xf.Engine(model, mode="fast").scores(inputs, 1).double(), truth, rtol=1e-4, atol=1e-3)

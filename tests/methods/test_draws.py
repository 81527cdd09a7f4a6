"""What methods that draw promise: the distribution, draws keyed by an input's id, snapshots on the way, the gap."""

from __future__ import annotations

import networks
import pytest
import replicas_gradient
import replicas_masks
import torch
from fresh_memory import growth
from subjects import Small, signals
from torch import nn
from torch.nn import functional as F

import xai_fast as xf

TARGETS = [1, 3, 0]
IDS = torch.tensor([5, -3, 2**40])


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def smooth_grad(model, **settings):
    return xf.SmoothGrad(model, n_samples=4, **settings), replicas_gradient.smooth_grad, {"n_samples": 4, **settings}


def gradient_shap(model, **settings):
    given = {"baselines": signals(3, seed=9), "n_samples": 4, "noise": 0.3, **settings}
    return xf.GradientShap(model, **given), replicas_gradient.gradient_shap, given


def rise(model, **settings):
    given = {"n_masks": 5, "cells": 3, **settings}
    return xf.RISE(model, **given), replicas_masks.rise, given


def stratified_rise(model, **settings):
    return rise(model, sampler="stratified", **settings)


DRAWING = [smooth_grad, gradient_shap, rise, stratified_rise]


@pytest.mark.parametrize("make", DRAWING)
def test_draws_belong_to_an_inputs_id_and_not_to_its_place(make):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    method, replica, settings = make(model)
    values = method.attribute(inputs, TARGETS, sample_ids=IDS)
    same(values, replica(model, inputs, TARGETS, **settings, sample_ids=IDS))
    turned = [2, 0, 1]
    again = method.attribute(inputs[turned], [TARGETS[n] for n in turned], sample_ids=IDS[turned])
    same(again, values[turned])
    same(method.attribute(inputs[1:2], TARGETS[1], sample_ids=IDS[1:2]), values[1:2])
    without = method.attribute(inputs, TARGETS)
    same(without, method.attribute(inputs, TARGETS, sample_ids=torch.zeros(3, dtype=torch.long)))
    twice = method.attribute(inputs[[0, 0]], 1)
    same(twice[0], twice[1])
    assert not torch.allclose(without, values)


@pytest.mark.parametrize("make", DRAWING)
def test_another_seed_is_another_draw(make):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    maps = [make(model, seed=seed)[0].attribute(inputs, TARGETS) for seed in (0, 1, 2**64 - 1, 0)]
    assert not torch.allclose(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    assert torch.equal(maps[0], maps[3])


class Squares(nn.Module):
    """s = ½ Σ x², whose gradient is its input: a map under noise is the noisy input itself."""

    def forward(self, x):
        return 0.5 * x.flatten(1).square().sum(1, keepdim=True)


def test_noise_is_normal_with_the_promised_deviation():
    inputs, n_samples = signals(2, (3, 6, 5), torch.float64), 600
    spread = (inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)).view(2, 1, 1, 1)
    for noise, relative, sigma in ((0.2, True, 0.2 * spread), (0.7, False, torch.full((2, 1, 1, 1), 0.7))):
        settings = {"n_samples": n_samples, "noise": noise, "relative": relative}
        mean = xf.SmoothGrad(Squares(), **settings).attribute(inputs, 0)
        variance = xf.SmoothGrad(Squares(), aggregate="variance", **settings).attribute(inputs, 0)
        standard = (mean - inputs) / sigma * n_samples**0.5
        assert 0.7 < standard.square().mean() < 1.4
        assert standard.abs().max() < 5
        # A variance of n draws scatters by sqrt(2 / n) of itself, and 180 of them together by much less.
        assert (variance / sigma**2).sub(1).abs().max() < 5 * (2 / n_samples) ** 0.5
        assert abs((variance / sigma**2).mean().item() - 1) < 0.03
        square = xf.SmoothGrad(Squares(), aggregate="square", **settings).attribute(inputs, 0)
        same(square, variance + mean**2)


def test_noise_as_a_share_of_a_pixels_range():
    """One grey level has another size in each channel as the model sees it."""
    model, inputs = Small().double(), signals(dtype=torch.float64)
    preprocess = xf.Preprocess(mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 2.0))
    engine = xf.Engine(model, preprocess=preprocess)
    values = xf.SmoothGrad(engine, n_samples=3, noise=0.1, relative="range").attribute(inputs, TARGETS)
    sigma = torch.tensor([0.2, 0.4, 0.05], dtype=torch.float64).view(3, 1, 1)
    expected = []
    for row, target in zip(inputs, TARGETS, strict=True):
        noisy = [row + sigma * replicas_gradient.normal_of(row, 0, j) for j in range(3)]
        expected.append(sum(replicas_gradient.replicas.gradient(model, one, target) for one in noisy) / 3)
    same(values, torch.stack(expected))


def test_opposite_noise_cancels_what_is_odd():
    inputs = signals(2, (3, 6, 5), torch.float64)
    method = xf.SmoothGrad(Squares(), n_samples=2, noise=3.0, antithetic=True)
    same(method.attribute(inputs, 0), inputs)
    assert not torch.allclose(xf.SmoothGrad(Squares(), n_samples=2, noise=3.0).attribute(inputs, 0), inputs)


WRAPPED = {
    "DeepLift": lambda model: xf.DeepLift(model, baselines=0.25),
    "DeepLiftShap": lambda model: xf.DeepLiftShap(model, baselines=signals(2, seed=9)),
    "Deconvolution": xf.Deconvolution,
    "InputXGradient": lambda model: xf.InputXGradient(model, layer="stem"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_method_is_averaged_over_noisy_copies(name):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    method = WRAPPED[name](model)
    found = xf.SmoothGrad(method, n_samples=3, noise=0.3, relative=False).attribute(inputs, TARGETS)
    noisy = [inputs + 0.3 * replicas_gradient.normal_of(inputs[0], 0, draw) for draw in range(3)]
    same(found, sum(method.attribute(one, TARGETS) for one in noisy) / 3)


def test_a_wrapped_method_that_draws_itself():
    """Where the score is linear, draws inside do not matter: the mean noisy input less the reference is left."""
    weight, inputs = torch.linspace(-1, 2, 90, dtype=torch.float64).view(3, 6, 5), signals(2, (3, 6, 5), torch.float64)
    method = xf.GradientShap(lambda x: (x * weight).flatten(1).sum(1, keepdim=True), baselines=0.5, n_samples=4)
    found = xf.SmoothGrad(method, n_samples=3, noise=0.3, relative=False).attribute(inputs, 0)
    noise = sum(replicas_gradient.normal_of(inputs[0], 0, draw) for draw in range(3)) / 3
    same(found, weight * (inputs + 0.3 * noise - 0.5))


@pytest.mark.parametrize(
    ("network", "n_steps"), [("demo", 100), pytest.param("resnet18", 400, marks=pytest.mark.slow)], ids=str
)
def test_integrated_gradients_are_complete_on_networks_that_are_awake(network, n_steps):
    model, size = (xf.load("demo").model, 96) if network == "demo" else (networks.awakened(network), 64)
    model, inputs = model.double(), networks.photos(2, size).double()
    found = xf.IntegratedGradients(model, n_steps=n_steps)(inputs)
    starts = xf.Engine.of(model).scores(torch.zeros_like(inputs), found.target)
    assert (found.completeness_gap.abs() < 0.01 * (found.score - starts).abs()).all()


@pytest.mark.parametrize("against", ["distribution", "predicted"])
def test_what_causes_an_error_sums_to_it(against):
    """From no activation on, up to the stated gap, which is that of the quadrature."""
    model, inputs = Small().double(), signals(dtype=torch.float64)
    found = xf.ErrorAttribution(model, kind="activation", against=against)(inputs, [2, 3, 0], resolution="native")
    with torch.no_grad():
        scores = model(inputs)
        layer = model.get_submodule(found.layer[0])
        hook = layer.register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
        silent = model(inputs)
        hook.remove()
        shares = scores.softmax(1) if against == "distribution" else F.one_hot(scores.argmax(1), 5).double()

        def error(scores):
            return (shares * scores).sum(1) - scores[torch.arange(3), [2, 3, 0]]

    falls = error(scores) - error(silent)
    same(found.values.flatten(1).sum(1) - found.completeness_gap, falls)
    assert found.completeness_gap.abs().max() < 0.02 * falls.abs().max()


def test_memory_does_not_grow_with_the_number_of_rows():
    """Four hundred gradients of 3 x 200 x 200 would be 192 MB."""
    code = """
torch.manual_seed(0)
parts = torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
model = torch.nn.Sequential(*parts)
engine, inputs = xf.Engine(model, batch_size=8), torch.rand(1, 3, 200, 200)
def work(count):
    for method in (
        xf.IntegratedGradients(engine, n_steps=count),
        xf.SmoothGrad(engine, n_samples=count),
        xf.SmoothGrad(xf.Saliency(engine), n_samples=count, aggregate="variance"),
        xf.GradientShap(engine, n_samples=count, baselines=0.0),
    ):
        assert method.attribute(inputs, 1).isfinite().all()
"""
    assert growth(code, 16, 400) < 60


@pytest.mark.parametrize("aggregate", ["mean", "square", "variance"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_snapshots_are_the_maps_of_fewer_copies(aggregate, batch_size):
    model, inputs = Small().double(), signals(2, dtype=torch.float64)
    engine = xf.Engine(model, batch_size=batch_size)
    settings = {"aggregate": aggregate, "noise": 0.3}
    explanation = xf.SmoothGrad(engine, n_samples=6, snapshots=(5, 2, 6), **settings)(inputs, [1, 3])
    assert sorted(explanation.snapshots) == [2, 5, 6]
    for count, values in explanation.snapshots.items():
        same(values, xf.SmoothGrad(engine, n_samples=count, **settings).attribute(inputs, [1, 3]))
    same(explanation.snapshots[6], explanation.values)


def test_the_gap_is_what_the_map_lacks():
    model, inputs = Small().double(), signals(dtype=torch.float64)
    references = signals(2, seed=9)

    def scores(x):
        return model(x).detach()[torch.arange(len(x)), TARGETS]

    def mean_score(baselines):
        return torch.stack([scores(one.double().expand(3, -1, -1, -1)) for one in baselines]).mean(0)

    start = scores(torch.full_like(inputs, 0.5))
    cases = (
        (xf.IntegratedGradients(model, n_steps=3, baseline=0.5), start),
        (xf.IntegratedGradients(model, n_steps=3, baseline=0.5, layer="stem"), start),
        (xf.DeepLift(model, baselines=0.5), start),
        (xf.DeepLiftShap(model, baselines=references), mean_score(references)),
    )
    for method, reference in cases:
        explanation = method(inputs, TARGETS)
        sums = explanation.values.flatten(1).sum(1)
        same(explanation.completeness_gap, sums - (scores(inputs) - reference))
        if "DeepLift" in repr(method):
            assert explanation.completeness_gap.abs().max() < 1e-9
        else:
            assert explanation.completeness_gap.abs().max() > 1e-4


def test_gradient_shap_takes_the_draws_themselves():
    model, inputs, references = Small().double(), signals(2).double(), signals(3, seed=5).double()
    positions = torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    numbers = torch.tensor([0, 2, 1, 1, 2, 0, 0, 1])
    method = xf.GradientShap(model, baselines=references, n_samples=4, draws=(positions, numbers))
    expected = torch.zeros_like(inputs)
    for row, (position, number) in enumerate(zip(positions, numbers, strict=True)):
        end, start = inputs[row // 4], references[number]
        point = (start + position * (end - start))[None].requires_grad_()
        (gradient,) = torch.autograd.grad(model(point)[0, 1], point)
        expected[row // 4] += gradient[0] * (end - start) / 4
    torch.testing.assert_close(method.attribute(inputs, 1), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="`draws` hold 8 positions; give 4"):
        method.attribute(inputs[:1], 1)
    outside = xf.GradientShap(model, baselines=references[:2], n_samples=4, draws=(positions, numbers))
    with pytest.raises(ValueError, match="`draws` hold numbers of baselines outside of 0 to 1"):
        outside.attribute(inputs, 1)
    for draws in ((positions,), (positions, numbers[:1]), (positions.float(), numbers)):
        with pytest.raises(ValueError, match="`draws` came"):
            xf.GradientShap(model, draws=draws)

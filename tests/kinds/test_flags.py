"""What a map means is said by the method and by its explanation, under the settings it has, wrapped or not.

The judge is the map itself: how it answers to other units of the score and of the input, its sign, and its sum.
"""

from __future__ import annotations

import copy

import pytest
import torch
from methods.subjects import signals
from torch import nn

import xai_fast as xf

INPUTS = signals(3, (3, 9, 8), dtype=torch.float64)
SEGMENTS = torch.arange(72).view(9, 8) // 18


def net(score=1.0, inputs=1.0):
    """A network whose scores are `score` times as large, of inputs that are `inputs` times as large."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        layers = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    model = nn.Sequential(*layers).double().eval()
    model[0].weight.data /= inputs
    model[4].weight.data *= score
    model[4].bias.data *= score
    return model


METHODS = {
    "Saliency": lambda m: xf.Saliency(m),
    "Saliency signed": lambda m: xf.Saliency(m, absolute=False, channels="sum"),
    "InputXGradient": lambda m: xf.InputXGradient(m),
    "IntegratedGradients": lambda m: xf.IntegratedGradients(m, n_steps=32),
    "GradientShap": lambda m: xf.GradientShap(m, baselines=0.0, n_samples=4),
    "DeepLift": lambda m: xf.DeepLift(m),
    "GuidedBackprop": lambda m: xf.GuidedBackprop(m),
    "Occlusion": lambda m: xf.Occlusion(m, window=4),
    "KernelShap": lambda m: xf.KernelShap(m, segments=SEGMENTS),
    "GradCAM": lambda m: xf.GradCAM(m, layer="0"),
    "AblationCAM": lambda m: xf.AblationCAM(m, layer="0"),
    "ErrorAttribution predicted": lambda m: xf.ErrorAttribution(m, against="predicted"),
    **{
        f"SmoothGrad {aggregate} of {name}": (
            lambda m, make=make, aggregate=aggregate: xf.SmoothGrad(make(m), n_samples=4, aggregate=aggregate)
        )
        for aggregate in ("mean", "square", "variance")
        for name, make in {
            "Saliency": lambda m: xf.Saliency(m),
            "InputXGradient": lambda m: xf.InputXGradient(m),
            "IntegratedGradients": lambda m: xf.IntegratedGradients(m, n_steps=16),
        }.items()
    },
}
# By how much a map grows where scores grow threefold, and inputs twofold.
GROWTH = {
    "score": (3, 1),
    "score per input unit": (3, 1 / 2),
    "score squared": (9, 1),
    "(score per input unit) squared": (9, 1 / 4),
}
TARGET = [2, 0, 1]


@pytest.mark.filterwarnings("ignore:no ReLU ran")
@pytest.mark.parametrize("name", METHODS)
def test_units_signs_and_sums_are_as_they_say(name):
    method = METHODS[name](net())
    found = method(INPUTS, TARGET)
    values = found.values
    for flag in ("units", "signed", "complete", "class_specific"):
        assert getattr(found, flag) == getattr(method, flag)
    by_score, by_input = GROWTH[method.units]
    largest = values.abs().max()
    grown = METHODS[name](net(score=3.0)).attribute(INPUTS, TARGET)
    assert (grown - by_score * values).abs().max() <= 1e-8 * largest
    grown = METHODS[name](net(inputs=2.0)).attribute(INPUTS * 2, TARGET)
    assert (grown - by_input * values).abs().max() <= 1e-8 * largest
    assert bool((values < 0).any()) == method.signed
    if method.complete and "over" not in method.complete:
        assert found.completeness_gap.abs().max() <= 1e-6 * found.score.abs().max()
    elif not method.complete:
        assert found.completeness_gap is None


def test_a_smoothed_map_sums_to_what_its_noise_says():
    """The difference of scores, averaged over the noisy copies."""
    wrapped = xf.IntegratedGradients(net(), n_steps=32)
    assert xf.SmoothGrad(wrapped, noise=0).complete == wrapped.complete
    method = xf.SmoothGrad(wrapped, n_samples=3, noise=0.2, relative=False)
    assert method.complete == "f(x) - f(baseline), averaged over the noise"
    copies = []
    model = net()
    watching = copy.deepcopy(model)
    watching.register_forward_pre_hook(lambda _module, args: copies.append(args[0].detach().clone()))
    xf.SmoothGrad(
        xf.Saliency(xf.Engine(watching, plan="dense"), absolute=True), n_samples=3, noise=0.2, relative=False
    ).attribute(INPUTS[:1], 1)
    noisy = next(batch for batch in reversed(copies) if len(batch) == 3)
    with torch.no_grad():
        expected = model(noisy)[:, 1].mean() - model(torch.zeros_like(INPUTS[:1]))[0, 1]
    assert (method.attribute(INPUTS[:1], 1).sum() - expected).abs() <= 1e-8 * expected.abs()


def test_what_a_layer_and_a_product_have_no_shared_unit_for():
    model = net()
    assert xf.Saliency(model, layer="0").units == "score per layer unit"
    assert xf.SmoothGrad(xf.Saliency(model, layer="0"), aggregate="square").units == "(score per layer unit) squared"
    for method in (xf.GuidedGradCAM(model, layer="0"), xf.SmoothGrad(xf.GuidedGradCAM(model, layer="0"))):
        assert (method.units, method.signed, method.complete) == ("none", True, "")
    activation = xf.ErrorAttribution(model, kind="activation", layer="0")
    assert (activation.units, activation.complete) == ("score", "e - e(no activation)")
    assert xf.RISE(model, centred=True).signed
    assert not xf.RISE(model).signed


@pytest.mark.parametrize("name", xf.methods())
def test_under_its_defaults_a_method_says_what_the_registry_does(name):
    info = xf.methods()[name]
    if not info.attributes:
        pytest.skip("attributes no score to an input")
    named = ["0", "1"] if name == "RefineCAM" else "0"  # from its finest to its coarsest
    layer = {"layer": named} if info.cls.__dataclass_fields__.get("layer") and info.kind == "map" else {}
    method = info.cls(net(), **info.starting, **layer)
    assert (method.units, method.signed, method.complete) == (info.units, info.signed, info.complete)
    assert method.class_specific == info.class_specific


def test_flags_are_kept_in_the_file(tmp_path):
    found = xf.SmoothGrad(xf.IntegratedGradients(net(), n_steps=4), n_samples=2)(INPUTS, 1)
    again = xf.Explanation.load(found.save(tmp_path))
    for flag in ("units", "signed", "complete", "class_specific"):
        assert getattr(again, flag) == getattr(found, flag)

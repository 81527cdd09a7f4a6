"""Against captum on awake networks: our float32 run is as near to the float64 truth as captum's own, within the rule.

The rule (element errors relative to the truth): the largest error is at most max(4 times captum's, 1e-5 of max|map|),
the root mean square at most max(2.5 times captum's, 1e-6 of max|map|). Where captum's own run is off by over 1e-3 of
max|map| at some element (a ReLU fell on the other side), only the root mean square counts.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import networks
import pytest
import replicas
import torch
from torch import nn

import xai_fast as xf

attr = pytest.importorskip("captum.attr", reason="captum is not installed")

MODELS = ("resnet18", "vgg11", "odd")
GRADCAM_LAYERS = {"resnet18": ("layer4", "layer2.0.bn2"), "vgg11": ("features.20", "features.9"), "odd": ("grouped",)}
WINDOWS = {"resnet18": (20, 12), "vgg11": (24, 20), "odd": ((31, 20), (22, 20))}
METHODS = ("Saliency", "InputXGradient", "GradCAM", "Occlusion")
CASES = [
    *((name, method) for name in MODELS for method in METHODS),
    ("resnet18", "GradCAM early"),
    ("resnet18", "Occlusion channel"),
    ("vgg11", "GradCAM early"),
    ("odd", "Saliency signed"),
    ("odd", "Occlusion channel"),
]
CASES.sort(key=lambda case: MODELS.index(case[0]))  # each network is made once


class Scores(nn.Module):
    """The network's class scores as a tensor, which is what captum takes; layers keep their names below `net`."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        output = self.net(x)
        return output["logits"] if isinstance(output, dict) else output


@lru_cache(maxsize=1)  # a VGG is half a gigabyte, a gigabyte in float64
def subject(name):
    """(model in float32, model in float64, inputs, targets); the float64 one has the float32 weights."""
    if name == "odd":
        model, inputs = networks.odd_network(), networks.photos(2, 97)[:, :2, :, 8:89].contiguous()
    else:
        model, inputs = networks.awakened(name), networks.photos(2, 64)
    with torch.no_grad():
        targets = Scores(model)(inputs).argmax(1)
    return model, copy.deepcopy(model).double(), inputs, targets


def ours(name, method, model, inputs, targets):
    kind, _, variant = method.partition(" ")
    settings = {
        "Saliency": {"absolute": variant != "signed"},
        "InputXGradient": {},
        "GradCAM": {"layer": GRADCAM_LAYERS[name][variant == "early"]} if kind == "GradCAM" else {},
        "Occlusion": occlusion_settings(name, variant),
    }[kind]
    return getattr(xf, kind)(model, **settings).attribute(inputs, targets)


def occlusion_settings(name, variant):
    window, stride = WINDOWS[name]
    if variant == "channel":
        both = ((1, *([extent] * 2 if isinstance(extent, int) else extent)) for extent in (window, stride))
        window, stride = both
    return {"window": window, "stride": stride, "baseline": 0.1}


def captums(name, method, model, inputs, targets):
    """Captum's map; one channel of its Occlusion where ours has one, since it repeats them."""
    kind, _, variant = method.partition(" ")
    model = Scores(model)
    if kind == "Saliency":
        return attr.Saliency(model).attribute(inputs.clone().requires_grad_(), targets, abs=variant != "signed")
    if kind == "InputXGradient":
        return attr.InputXGradient(model).attribute(inputs.clone().requires_grad_(), targets)
    if kind == "GradCAM":
        layer = model.net.get_submodule(GRADCAM_LAYERS[name][variant == "early"])
        cam = attr.LayerGradCam(model, layer).attribute(inputs, targets, relu_attributions=True)
        return nn.functional.interpolate(cam, inputs.shape[2:], mode="bilinear", align_corners=False)
    settings = occlusion_settings(name, variant)
    shapes = []
    for key in ("window", "stride"):
        extent = settings[key]
        extent = (extent, extent) if isinstance(extent, int) else tuple(extent)
        shapes.append(extent if len(extent) == 3 else (inputs.shape[1], *extent))
    values = attr.Occlusion(model).attribute(
        inputs, shapes[0], strides=shapes[1], baselines=settings["baseline"], target=targets, perturbations_per_eval=8
    )
    return values if variant == "channel" else values[:, :1]


def truth(name, method, model, inputs, targets):
    """The formula in float64: captum's own, except for its Occlusion, which is float32 whatever it is given."""
    kind, _, variant = method.partition(" ")
    if kind == "Occlusion":
        return replicas.occlusion(model, inputs, targets.tolist(), **occlusion_settings(name, variant))
    return captums(name, method, model, inputs.double(), targets).detach()


def errors(actual, expected):
    """(largest, root mean square) error as a share of max|map|."""
    error = (actual.detach().double() - expected).abs() / expected.abs().max()
    return error.max().item(), error.square().mean().sqrt().item()


@pytest.mark.parametrize(("name", "method"), CASES)
def test_as_near_to_the_truth_as_captum(name, method, record_property):
    model, wide, inputs, targets = subject(name)
    expected = truth(name, method, wide, inputs, targets)
    assert expected.abs().max() > 1e-3, "the network sleeps"
    in_double = ours(name, method, wide, inputs.double(), targets)
    single = ours(name, method, model, inputs, targets)
    theirs = captums(name, method, model, inputs, targets)
    assert in_double.shape == single.shape == theirs.shape
    xf.Engine.of(wide).refresh()

    exact, _ = errors(in_double, expected)
    largest, rms = errors(single, expected)
    their_largest, their_rms = errors(theirs, expected)
    record_property("ours", (largest, rms))
    record_property("captum's", (their_largest, their_rms))
    print(
        f"{name:9} {method:18} max {largest:.1e} (captum {their_largest:.1e})  rms {rms:.1e} (captum {their_rms:.1e})"
        f"  float64 {exact:.1e}"
    )
    assert exact <= 1e-10
    assert rms <= max(2.5 * their_rms, 1e-6)
    if their_largest <= 1e-3:
        assert largest <= max(4 * their_largest, 1e-5)


def test_captums_map_is_not_ours_by_accident():
    """Another target gives another map, so that the comparison compares something."""
    model, _, inputs, targets = subject("odd")
    one = ours("odd", "GradCAM", model, inputs, targets)
    other = captums("odd", "GradCAM", model, inputs, (targets + 1) % 5)
    assert errors(one, other.double())[0] > 0.05

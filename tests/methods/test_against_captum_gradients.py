"""Against captum on awake networks: path, noise, DeepLIFT and ReLU-rule methods, by the rule of `numerics`.

Where captum draws, it is handed our draws. Where it differs from the formula, that is undone, and said: its trapezoid's
weights sum to 1 − 1/n; its weights are float32 whatever the inputs are, so that the truth of its quadratures comes from
the replicas; its ReLU rules see modules only, and none that write in place; and its DeepLIFT loses the sum where one
nonlinear module returns the very tensor that the next one takes (the first reads its multiplier before the second has
changed it), so a copy goes between them.

On real networks a ReLU lies within rounding of its kink at some point of nearly every path; there `numerics` has a
bound, and the rule is held to on smooth ones.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple
from unittest import mock

import networks
import numpy as np
import pytest
import replicas_gradient
import torch
import torchvision
from numerics import compare
from test_against_captum import GRADCAM_LAYERS, MODELS, Scores, subject
from torch import nn

import xai_fast as xf

attr = pytest.importorskip("captum.attr", reason="captum is not installed")

N_STEPS, N_SAMPLES, SEED = 5, 6, 3
QUADRATURES = {
    "gausslegendre": "gausslegendre",
    "left": "riemann_left",
    "right": "riemann_right",
    "middle": "riemann_middle",
    "trapezoid": "riemann_trapezoid",
}
CONVOLUTION = {"resnet18": "layer3.0.conv1", "vgg11": "features.13", "odd": "dilated"}
COMPLETE = {"resnet18": "layer2", "vgg11": "features.13", "odd": "dilated"}  # layers past which nothing goes


class Subject(NamedTuple):
    name: str
    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor

    @property
    def wrapped(self):
        return Scores(self.model)

    def layer(self, of):
        """A layer of what captum was given."""
        return of.get_submodule(f"net.{self.layer_name}")

    @property
    def layer_name(self):
        return CONVOLUTION[self.name.removeprefix("smooth ")]

    @property
    def references(self):
        """Other photographs (3, C, H, W)."""
        others = networks.photos(5, max(self.inputs.shape[2:]))[2:]
        return others[:, : self.inputs.shape[1], : self.inputs.shape[2], : self.inputs.shape[3]].to(self.inputs)


@lru_cache(maxsize=1)
def subjects(name):
    """(in float32, the same in float64)."""
    made = {"vgg11": small_headed_vgg, "smooth resnet18": smooth_resnet, "smooth vgg11": smooth_vgg}
    if name in made:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = networks.awaken(made[name](), networks.photos(12, 64))
        inputs = networks.photos(2, 64)
        wide, targets = copy.deepcopy(model).double(), model(inputs).argmax(1)
    else:
        model, wide, inputs, targets = subject(name)
    return Subject(name, model, inputs, targets), Subject(name, wide, inputs.double(), targets)


def small_headed_vgg():
    """A VGG-11 without the hundred million weights of its head, by which these methods would run for minutes."""
    model = torchvision.models.vgg11(weights=None)
    model.avgpool = nn.Identity()
    model.classifier = nn.Sequential(nn.Linear(2048, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    return model


def smooth_vgg():
    return smooth(small_headed_vgg())


def smooth_resnet():
    return smooth(torchvision.models.resnet18(weights=None))


def smooth(model):
    """The network without kinks: SiLU and mean pooling for ReLU and its maxima."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return model


def integrated(quadrature, at_layer=False):
    """(ours, captum's, the truth)."""
    settings = {"n_steps": N_STEPS, "quadrature": quadrature, "baseline": 0.1}

    def ours(s):
        layer = s.layer_name if at_layer else None
        return xf.IntegratedGradients(s.model, layer=layer, **settings).attribute(s.inputs, s.targets)

    def theirs(s):
        layer = s.layer(wrapped := apart(s.wrapped) if at_layer else s.wrapped)
        method = attr.LayerIntegratedGradients(wrapped, layer) if at_layer else attr.IntegratedGradients(wrapped)
        factor = N_STEPS / (N_STEPS - 1) if quadrature == "trapezoid" else 1
        one = {"target": s.targets, "n_steps": N_STEPS, "method": QUADRATURES[quadrature]}
        return method.attribute(s.inputs.clone(), 0.1, **one) * factor

    def truth(s):
        layer = {"layer": s.layer_name} if at_layer else {}
        return replicas_gradient.integrated_gradients(s.model, s.inputs, s.targets.tolist(), **settings, **layer)

    return ours, theirs, truth


@contextmanager
def our_draws(inputs, *, sigma, references=1):
    """Captum's generators give what ours drew: rows of an input follow each other, every input has the same draws."""
    from xai_fast.core.random import uniforms

    each = [replicas_gradient.normal_of(inputs[0], SEED, j) for j in range(N_SAMPLES)]
    scale = sigma.to(inputs).repeat_interleave(N_SAMPLES).view(-1, 1, 1, 1)
    noise = torch.stack(each).repeat(len(inputs), 1, 1, 1) * scale
    uniform = uniforms(SEED, torch.zeros(N_SAMPLES).long(), torch.arange(N_SAMPLES), 2).repeat(len(inputs), 1).numpy()
    with (
        mock.patch.object(torch, "normal", return_value=noise),
        mock.patch.object(np.random, "uniform", return_value=uniform[:, 0]),
        mock.patch.object(np.random, "choice", return_value=(uniform[:, 1] * references).astype(int)),
    ):
        yield


def smoothed(aggregate, of):
    """SmoothGrad and captum's NoiseTunnel around the same method."""
    kinds = {"mean": "smoothgrad", "square": "smoothgrad_sq", "variance": "vargrad"}

    def ours(s):
        inner = {"Saliency": xf.Saliency(s.model), "InputXGradient": xf.InputXGradient(s.model)}.get(of, s.model)
        method = xf.SmoothGrad(inner, n_samples=N_SAMPLES, aggregate=aggregate, seed=SEED)
        return method.attribute(s.inputs, s.targets)

    def theirs(s):
        saliency = {} if of == "InputXGradient" else {"abs": of == "Saliency"}
        inner = (attr.InputXGradient if of == "InputXGradient" else attr.Saliency)(s.wrapped)
        flat = s.inputs.flatten(1)
        with our_draws(s.inputs, sigma=0.15 * (flat.amax(1) - flat.amin(1))):
            return attr.NoiseTunnel(inner).attribute(
                s.inputs, nt_type=kinds[aggregate], nt_samples=N_SAMPLES, target=s.targets, **saliency
            )

    return ours, theirs, theirs


def gradient_shap(noise, at_layer=False):
    def ours(s):
        settings = {"baselines": s.references, "n_samples": N_SAMPLES, "noise": noise, "seed": SEED}
        layer = s.layer_name if at_layer else None
        return xf.GradientShap(s.model, layer=layer, **settings).attribute(s.inputs, s.targets)

    def theirs(s):
        layer = s.layer(wrapped := apart(s.wrapped) if at_layer else s.wrapped)
        method = attr.LayerGradientShap(wrapped, layer) if at_layer else attr.GradientShap(wrapped)
        with our_draws(s.inputs, sigma=torch.full((len(s.inputs),), noise, dtype=torch.float64), references=3):
            return method.attribute(s.inputs.clone(), s.references, n_samples=N_SAMPLES, stdevs=noise, target=s.targets)

    return ours, theirs, theirs


class Copy(nn.Module):
    def forward(self, x):
        return x.clone()


def apart(model):
    """The same network, with a copy behind every ReLU, none of which writes in place."""
    model = copy.deepcopy(model)
    rectifiers = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    for name in rectifiers:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Sequential(nn.ReLU(), Copy()))
    return model


def deep_lift(shap, at_layer=False):
    def ours(s):
        method, references = (xf.DeepLiftShap, s.references) if shap else (xf.DeepLift, s.references[:1])
        layer = s.layer_name if at_layer else None
        return method(s.model, layer=layer, baselines=references).attribute(s.inputs, s.targets)

    def theirs(s):
        layer = s.layer(wrapped := apart(s.wrapped))
        name = f"{'Layer' * at_layer}DeepLift{'Shap' * shap}"
        method = getattr(attr, name)(*([wrapped, layer] if at_layer else [wrapped]))
        return method.attribute(s.inputs, s.references if shap else s.references[:1], target=s.targets)

    return ours, theirs, theirs


def by_rule(ours_name, captums_name):
    """Captum's hooks stay on what it was given, so it gets a copy."""

    def ours(s):
        return getattr(xf, ours_name)(s.model).attribute(s.inputs, s.targets)

    def theirs(s):
        return getattr(attr, captums_name)(apart(s.wrapped)).attribute(s.inputs.clone(), s.targets)

    return ours, theirs, theirs


def guided_gradcam():
    def ours(s):
        return xf.GuidedGradCAM(s.model, layer=GRADCAM_LAYERS[s.name][0]).attribute(s.inputs, s.targets)

    def theirs(s):
        wrapped = apart(s.wrapped)
        layer = wrapped.get_submodule(f"net.{GRADCAM_LAYERS[s.name][0]}")
        method = attr.GuidedGradCam(wrapped, layer)
        return method.attribute(s.inputs.clone(), s.targets, interpolate_mode="bilinear")

    return ours, theirs, theirs


class Error(nn.Module):
    """How wrong the scores are, (rows, 1)."""

    def __init__(self, scores, labels, formula):
        super().__init__()
        self.scores, self.labels, self.formula = scores, labels, formula

    def forward(self, x):
        return self.formula(self.scores(x), self.labels)[:, None]


def error_attribution(kind, against):
    """By captum as gradients of the loss; the true class is another than the predicted one."""

    def labels_of(s):
        return (s.targets + 1) % 5

    def formula(scores, labels):
        true = scores.gather(1, labels[:, None])[:, 0]
        if against == "predicted":
            return scores.amax(1) - true
        if kind == "gradient":
            return nn.functional.cross_entropy(scores, labels, reduction="none")
        return (scores.softmax(1).detach() * scores).sum(1) - true

    def ours(s):
        layer = {"layer": GRADCAM_LAYERS[s.name][0]} if kind == "activation" else {}
        return xf.ErrorAttribution(s.model, kind=kind, against=against, **layer).attribute(
            s.inputs, labels_of(s), resolution="native" if layer else "input"
        )

    def theirs(s):
        error = Error(s.wrapped, labels_of(s), formula)
        if kind == "gradient":
            return attr.Saliency(error).attribute(s.inputs.clone().requires_grad_(), 0, abs=False)
        layer = error.get_submodule(f"scores.net.{GRADCAM_LAYERS[s.name][0]}")
        return attr.LayerGradientXActivation(error, layer).attribute(s.inputs.clone(), 0).sum(1, keepdim=True)

    return ours, theirs, theirs


METHODS = {
    **{f"IntegratedGradients {name}": integrated(name) for name in QUADRATURES},
    "IntegratedGradients layer": integrated("gausslegendre", at_layer=True),
    "SmoothGrad": smoothed("mean", of="gradient"),
    "SmoothGrad square": smoothed("square", of="gradient"),
    "SmoothGrad Saliency": smoothed("mean", of="Saliency"),
    "SmoothGrad variance InputXGradient": smoothed("variance", of="InputXGradient"),
    "GradientShap": gradient_shap(0.0),
    "GradientShap noise": gradient_shap(0.2),
    "GradientShap layer": gradient_shap(0.2, at_layer=True),
    "GuidedBackprop": by_rule("GuidedBackprop", "GuidedBackprop"),
    "Deconvolution": by_rule("Deconvolution", "Deconvolution"),
    "GuidedGradCAM": guided_gradcam(),
    "DeepLift": deep_lift(shap=False),
    "DeepLift layer": deep_lift(shap=False, at_layer=True),
    "DeepLiftShap": deep_lift(shap=True),
    "DeepLiftShap layer": deep_lift(shap=True, at_layer=True),
    "ErrorAttribution": error_attribution("gradient", "distribution"),
    "ErrorAttribution predicted": error_attribution("gradient", "predicted"),
    "ErrorAttribution activation": error_attribution("activation", "distribution"),
    "ErrorAttribution activation predicted": error_attribution("activation", "predicted"),
}
RULES = ("GuidedBackprop", "Deconvolution", "GuidedGradCAM")
POINTS = ("IntegratedGradients", "SmoothGrad", "GradientShap")
FEW_POSITIONS = "ErrorAttribution activation"  # of a layer with four of them, so that two photographs say little
# Captum's ReLU rules and its DeepLIFT know no functions, which leaves "odd" out; its DeepLIFT takes no module twice and
# overwrites where pooling windows overlap, which leaves "resnet18" out. One network's tail is pooling and one layer.
FIT = {
    "resnet18": (*RULES, *(name for name in METHODS if name.startswith("ErrorAttribution"))),
    "vgg11": (*RULES, *(name for name in METHODS if name.startswith("DeepLift")), "ErrorAttribution"),
    "odd": [name for name in METHODS if name.startswith(POINTS)],
    "smooth resnet18": (
        *("IntegratedGradients gausslegendre", "IntegratedGradients layer", "SmoothGrad"),
        *("SmoothGrad variance InputXGradient", "GradientShap noise", "GradientShap layer"),
    ),
    "smooth vgg11": ("IntegratedGradients trapezoid", "SmoothGrad square", "GradientShap"),
}
KINKS = {
    "resnet18": ("IntegratedGradients trapezoid", "SmoothGrad", "GradientShap noise"),
    "vgg11": ("IntegratedGradients right", "IntegratedGradients layer", "SmoothGrad Saliency", "GradientShap layer"),
}
# Those of a network follow each other, since it is made once.
CASES = [(name, method) for name in FIT for method in (*FIT[name], *KINKS.get(name, ()))]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_as_near_to_the_truth_as_captum(name, method, record_property):
    narrow, double = subjects(name)
    if method.startswith(FEW_POSITIONS):
        inputs = networks.photos(8, 64)
        targets = narrow.wrapped(inputs).argmax(1)
        narrow = narrow._replace(inputs=inputs, targets=targets)
        double = double._replace(inputs=inputs.double(), targets=targets)
    ours, theirs, truth = METHODS[method]
    expected = truth(double).detach()
    kinks = method in KINKS.get(name, ())
    compare(expected, ours(double), ours(narrow), theirs(narrow).detach(), record_property, kinks=kinks)


@pytest.mark.parametrize("name", MODELS)
def test_deep_lift_sums_to_the_difference(name):
    """Also where captum's does not: ReLU before pooling, overlapping windows, modules used twice, functions."""
    _, s = subjects(name)
    with torch.no_grad():
        scores, reference = (s.wrapped(x)[:, s.targets].diagonal() for x in (s.inputs, s.references[[0, 0]]))
    for layer in (None, COMPLETE[name]):
        values = xf.DeepLift(s.model, layer=layer, baselines=s.references[:1]).attribute(s.inputs, s.targets)
        torch.testing.assert_close(values.flatten(1).sum(1), scores - reference, rtol=1e-6, atol=1e-8)

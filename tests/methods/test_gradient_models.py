"""The gradient family on models as users have them: any way to write a ReLU, wrapped, frozen, compiled, training."""

from __future__ import annotations

import warnings

import networks
import pytest
import torch
from subjects import signals
from torch import nn
from torch.nn import functional as F

import xai_fast as xf

METHODS = {
    "Saliency": {"absolute": False},
    "IntegratedGradients": {"n_steps": 6},
    "SmoothGrad": {"n_samples": 4},
    "GradientShap": {"n_samples": 4, "baselines": 0.25},
    "InputXGradient": {},
    "DeepLift": {},
    "DeepLiftShap": {"baselines": signals(2, seed=9)},
    "ErrorAttribution": {},
    "GuidedBackprop": {},
    "Deconvolution": {},
    "GuidedGradCAM": {"layer": "second"},
}
RULED = ("GuidedBackprop", "Deconvolution", "GuidedGradCAM")
every = pytest.mark.parametrize("method", METHODS)


class Net(nn.Module):
    """Two convolutions and a classifier; subclasses say how what follows each convolution is written."""

    def __init__(self, dropout=0.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
            self.head = nn.Linear(8, 5)
            with torch.no_grad():
                for layer in (self.first, self.second, self.head):
                    layer.weight.mul_(4)
        self.act, self.other = nn.ReLU(), nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def activated(self, x, number):
        return (self.act, self.other)[number](x)

    def forward(self, x):
        x = self.activated(self.first(x), 0)
        x = self.dropout(self.activated(self.second(x), 1))
        return self.head(x.mean((2, 3)))


class InPlace(Net):
    def __init__(self):
        super().__init__()
        self.act, self.other = nn.ReLU(inplace=True), nn.ReLU(inplace=True)


class Reused(Net):
    def activated(self, x, number):
        return self.act(x)


class ReusedInPlace(InPlace):
    def activated(self, x, number):
        return self.act(x)


class Functional(Net):
    def activated(self, x, number):
        return F.relu(x, inplace=number == 1)


class AsAMethod(Net):
    def activated(self, x, number):
        return x.relu() if number else x.relu_()


class OnData(Net):
    """Branches on what it sees, so that it cannot be captured."""

    def forward(self, x):
        if x.sum() > 1e9:
            return x.flatten(1)[:, :5]
        return super().forward(x)


class Smooth(Net):
    def __init__(self, act):
        super().__init__()
        self.act = self.other = act


def explained(method, model, inputs, **settings):
    return getattr(xf, method)(model, **{**METHODS[method], **settings}).attribute(inputs, [1, 3, 0])


def near(actual, expected):
    assert expected.abs().max() > 1e-5, "the map tells nothing"
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < 1e-5, f"off by {error:.1e}"


@pytest.mark.parametrize("net", [InPlace, Reused, ReusedInPlace, Functional, AsAMethod])
@every
def test_however_the_relu_is_written(method, net):
    inputs = signals()
    near(explained(method, net().eval(), inputs), explained(method, Net().eval(), inputs))


@pytest.mark.parametrize("method", [name for name in METHODS if "DeepLift" not in name])
def test_what_cannot_be_captured_runs_by_its_own_forward(method):
    inputs = signals()
    near(explained(method, OnData().eval(), inputs), explained(method, Net().eval(), inputs))


def test_the_rescale_rule_says_what_it_needs():
    with pytest.raises(ValueError, match=r"`model` cannot be explained by the rescale rule: .*choose another method"):
        explained("DeepLift", OnData().eval(), signals())


@every
def test_in_training_with_dropout(method):
    model, inputs = Net(dropout=0.5).train(), signals()
    near(explained(method, model, inputs), explained(method, Net().eval(), inputs))
    assert model.training
    assert model.dropout.training


@every
def test_frozen_weights(method):
    model, inputs = Net().eval().requires_grad_(False), signals()
    near(explained(method, model, inputs), explained(method, Net().eval(), inputs))
    assert not any(parameter.requires_grad for parameter in model.parameters())


@every
def test_wrapped_for_several_devices(method):
    model, inputs = nn.DataParallel(Net()).eval(), signals()
    settings = {"layer": "module.second"} if "layer" in METHODS[method] else {}
    near(explained(method, model, inputs, **settings), explained(method, Net().eval(), inputs))


@every
def test_compiled_by_the_user(method):
    model, inputs = torch.compile(Net().eval(), backend="eager"), signals()
    settings = {"layer": "_orig_mod.second"} if "layer" in METHODS[method] else {}
    near(explained(method, model, inputs, **settings), explained(method, Net().eval(), inputs))


@pytest.mark.parametrize("act", [nn.SiLU(), nn.GELU(), nn.Tanh()], ids=lambda act: type(act).__name__)
@pytest.mark.parametrize("method", RULED)
def test_a_rule_that_met_no_relu_says_so(method, act):
    """Other activations pass their gradient, and the user is told."""
    inputs = signals()
    with pytest.warns(UserWarning, match="no ReLU ran"):
        found = explained(method, Smooth(act).eval(), inputs)
    plain = explained("Saliency", Smooth(act).eval(), inputs)
    if method == "GuidedGradCAM":
        plain = plain * xf.GradCAM(Smooth(act).eval(), layer="second").attribute(inputs, [1, 3, 0])
    near(found, plain)


@pytest.mark.parametrize("method", RULED)
def test_a_rule_that_met_relus_is_silent(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explained(method, Net().eval(), signals())


@pytest.mark.parametrize("act", [nn.SiLU(), nn.GELU(), nn.Softplus()], ids=lambda act: type(act).__name__)
def test_the_rescale_rule_holds_for_smooth_activations(act):
    model, inputs = Smooth(act).double().eval(), signals(dtype=torch.float64)
    found = xf.DeepLift(model)(inputs, [1, 3, 0])
    assert found.completeness_gap.abs().max() <= 1e-6 * found.score.abs().max()


class Passing(torch.autograd.Function):
    """A ReLU that passes on what is positive, of the gradient (deconvolution) or of both (guided)."""

    @staticmethod
    def forward(ctx, x, guided):
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        passed = gradient.clamp_min(0)
        return (passed * (x > 0) if ctx.guided else passed), None


@pytest.mark.parametrize("method", ["GuidedBackprop", "Deconvolution"])
def test_the_functional_relus_of_a_densenet(method, monkeypatch):
    model, inputs = networks.awakened("densenet121").double(), networks.photos(1, 64).double()
    found = getattr(xf, method)(model).attribute(inputs, 3)
    x = inputs.clone().requires_grad_()
    guided = method == "GuidedBackprop"
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: Passing.apply(x, guided))
    (expected,) = torch.autograd.grad(model(x)[:, 3].sum(), x)
    monkeypatch.undo()
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10 * expected.abs().max().item())


class Viewed(Net):
    """Takes a view of a pooled map, which only the plain memory layout has."""

    def forward(self, x):
        x = self.activated(self.second(self.activated(self.first(x), 0)), 1)
        return F.adaptive_avg_pool2d(x, (1, 2)).view(x.shape[0], -1) @ torch.ones(16, 5, dtype=x.dtype)


def test_views_that_only_the_plain_layout_has():
    model, inputs = Viewed().eval(), signals()
    x = inputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    near(xf.Saliency(model, absolute=False).attribute(inputs, 1), expected)
    assert xf.Occlusion(model, window=6).attribute(inputs, 1).isfinite().all()

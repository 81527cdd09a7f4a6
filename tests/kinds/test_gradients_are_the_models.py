"""A gradient is the model's own, whatever capturing forgets: complex values, custom backwards, hooks on tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from forwards import INPUTS, Forward, StraightThrough, error, gradient, network
from torch import nn
from torch.nn import functional as F

import xai_fast as xf
from xai_fast.core.prepare import prepare
from xai_fast.engine.evaluate import agreement
from xai_fast.engine.evaluate.agreement import backward_for, tail_refusal
from xai_fast.engine.replay.tail import Tail, tail_of


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -0.5 * gradient


def exported(function):
    """The same behind a check that tracing cannot follow, so that `torch.export` writes the forward down."""

    def forward(self, x):
        if x.shape[1] != 3:
            raise ValueError("three channels")
        return function(self, x)

    return forward


def excited(self, x):
    features = self.n[:2](x)
    with torch.no_grad():
        gate = torch.sigmoid(8 * features.mean((2, 3), keepdim=True))
    return self.n[2:](features * gate)


def hooked(self, x):
    features = self.n[:1](x)
    if features.requires_grad:
        features.register_hook(lambda arrived: 3 * arrived)
    return self.n[1:](features)


def half_detached(self, x):
    features = self.n[:1](x)
    return self.n[1:](1.5 * features - 0.5 * features.detach())


def custom(function):
    return lambda self, x: self.n[1:](function.apply(self.n[:1](x)))


FORGOTTEN = {
    "straight-through": custom(StraightThrough),
    "reversed": exported(custom(Reversed)),
    "gate without gradient": excited,
    "gate without gradient, exported": exported(excited),
    "hook on a tensor": hooked,
    "partly detached": half_detached,
    "partly detached, exported": exported(half_detached),
}


def convolution():
    return nn.Conv2d(3, 4, 3, padding=1)


def products(self, x):
    z = torch.complex(self.a(x), self.b(x))
    z = z * z.conj() + torch.exp(1j * z.real)
    return self.h(torch.cat([z.real, z.imag], 1).mean((2, 3)))


def filtered(self, x):
    spectrum = torch.fft.rfft2(self.a(x))
    return self.h(torch.fft.irfft2(spectrum * torch.polar(spectrum.abs(), spectrum.angle())).mean((2, 3)))


COMPLEX = {
    "filtered spectrum": (filtered, 4),
    "magnitudes": (lambda self, x: self.h(torch.fft.fft2(self.a(x)).abs().mean((2, 3))), 4),
    "products": (products, 8),
    "polar": (lambda self, x: self.h(torch.polar(F.softplus(self.a(x)), self.b(x)).real.mean((2, 3))), 4),
    "pairs": (
        lambda self, x: self.h(
            torch.view_as_complex(torch.stack([self.a(x), self.b(x)], -1)).abs().square().mean((2, 3))
        ),
        4,
    ),
    "short-time spectra": (
        lambda self, x: self.h(
            torch.stft(
                self.a(x).mean(2).flatten(0, 1), 8, 4, window=torch.ones(8, dtype=x.dtype), return_complex=True
            ).abs().mean((1, 2)).view(-1, 4)
        ),
        4,
    ),
}  # fmt: skip

MODELS = {
    **{name: Forward(forward, n=network()) for name, forward in FORGOTTEN.items()},
    **{
        name: Forward(forward, a=convolution(), b=convolution(), h=nn.Linear(width, 3))
        for name, (forward, width) in COMPLEX.items()
    },
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_maps_are_those_of_the_models_own_gradient(name, dtype):
    model = copy.deepcopy(MODELS[name]).to(dtype).eval()
    bound = 1e-5 if dtype is torch.float32 else 1e-10
    inputs = INPUTS.to(dtype)
    truth = gradient(model) if "hook" not in name else _as_it_is(model, inputs)
    assert error(xf.Saliency(model, absolute=False).attribute(inputs, target=1), truth) <= bound
    assert error(xf.InputXGradient(model).attribute(inputs, target=1), truth * inputs) <= bound


def _as_it_is(model, inputs):
    leaf = inputs.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]


def test_complex_outputs_are_led_back():
    model = Forward(lambda self, x: torch.fft.fft(self.n(x)), n=network()).eval()

    def score(output):
        return output[:, 1].abs()

    found = xf.Saliency(model, absolute=False).attribute(INPUTS, target=score)
    assert error(found, gradient(model, score=score)) <= 1e-5


@pytest.mark.parametrize("name", ["straight-through", "gate without gradient, exported", "hook on a tensor"])
def test_layers_get_the_models_own_gradient(name):
    model = copy.deepcopy(MODELS[name]).eval()
    leaf = {}

    def keep(_layer, _args, output):
        leaf["at"] = output
        output.retain_grad()

    twin = copy.deepcopy(model)
    twin.n[0].register_forward_hook(keep)
    twin(INPUTS)[:, 1].sum().backward()
    weight = leaf["at"].grad.mean((2, 3), keepdim=True)
    truth = F.relu((leaf["at"].detach() * weight).sum(1, keepdim=True))
    assert error(xf.GradCAM(model, layer="n.0").attribute(INPUTS, target=1, resolution="native"), truth) <= 1e-5


def test_steps_with_the_right_output_and_a_wrong_gradient_are_not_trusted():
    """No forward that capturing follows is known to do this, so the graph is spoilt by hand."""
    shape = tuple(INPUTS.shape[1:])
    sound = prepare(network(), frozenset({"0"}), fast=False, compiled=False, example=INPUTS[:1])
    assert tail_refusal(sound, shape, ("0",), tail_of(sound, ("0",), INPUTS)) is None
    if sound.captured[shape].fuses:
        assert not isinstance(backward_for(sound, shape), str)

    spoilt = prepare(network(), frozenset({"0"}), fast=False, compiled=False, example=INPUTS[:1])
    captured = spoilt.captured[shape]
    (rectifier,) = [step for step in captured.graph.steps if step.operation == "relu"]
    rectifier.call = lambda x: 1.2 * F.relu(x) - 0.2 * F.relu(x).detach()
    tail = Tail(captured, ("0",))
    assert "another gradient than the model, by 2.0e-01" in tail_refusal(spoilt, shape, ("0",), tail)


def test_memory_that_ran_out_says_nothing_about_a_gradient(monkeypatch):
    shape = tuple(INPUTS.shape[1:])
    prepared = prepare(network(), frozenset({"0"}), fast=False, compiled=False, example=INPUTS[:1])
    tail = tail_of(prepared, ("0",), INPUTS)

    def full(*_args, **_settings):
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(agreement, "_by_autograd", full)
        assert "memory ran out" in tail_refusal(prepared, shape, ("0",), tail)
    assert tail_refusal(prepared, shape, ("0",), tail) is None


@pytest.mark.parametrize("size", [1e-3, 1.0, 3e4])
def test_what_half_precision_compares_by_does_not_overflow(size):
    """The squares of these have no number in float16, and a comparison of nothing with nothing would find it equal."""
    output = torch.full((1, 4000), size, dtype=torch.float16, requires_grad=True)
    (found,) = torch.autograd.grad(agreement._projected({"logits": output}), output)
    assert found.isfinite().all()
    assert found.count_nonzero() > 3900


@pytest.mark.parametrize("name", ["reversed", "gate without gradient, exported"])
def test_the_plan_says_why_gradients_are_autograds(name):
    model = copy.deepcopy(MODELS[name]).eval()
    text = xf.Engine(model).explain_plan(xf.Saliency(model), INPUTS)
    assert "gradients: by autograd" in text


def test_the_models_own_gradient_costs_its_state_nothing():
    calls = []
    model = Forward(custom(StraightThrough), n=network()).eval()
    model.n[0].register_full_backward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    xf.Saliency(model).attribute(INPUTS, target=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert len(calls) >= 1  # the user's hooks take part in what the user asked for

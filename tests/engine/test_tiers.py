"""Tiers: first calls run on a plain copy that borrows the weights, later ones on what is prepared; both agree."""

from __future__ import annotations

import copy

import pytest
import torch
from test_store import network
from torch import nn

import xai_fast as xf
from xai_fast.engine import tiers
from xai_fast.engine.decisions import TIER, Decisions


def tier_of(method, x):
    return next(line for line in method.engine.explain_plan(method, x).splitlines() if line.startswith("tier: "))


def prepared_copies(engine):
    return len(engine.store.contents().prepared)


METHODS = {
    "Saliency": lambda engine: xf.Saliency(engine),
    "GradCAM": lambda engine: xf.GradCAM(engine),
    "IntegratedGradients": lambda engine: xf.IntegratedGradients(engine, n_steps=5),
    "EigenCAM": lambda engine: xf.EigenCAM(engine),
    "GuidedBackprop": lambda engine: xf.GuidedBackprop(engine),
    "Occlusion": lambda engine: xf.Occlusion(engine, window=8, stride=8),
    "SmoothGrad": lambda engine: xf.SmoothGrad(xf.Saliency(engine), n_samples=4),
}


@pytest.mark.parametrize("name", METHODS)
def test_tiers_agree(name):
    model, x = network().double(), torch.randn(3, 3, 32, 32).double()
    found = {}
    for tier in ("plain", "prepared"):
        with tiers.assuming(tier):
            method = METHODS[name](xf.Engine(model))
            assert tier_of(method, x).startswith(f"tier: {tier}")
            found[tier] = method(x, target=[1, 2, 3])
            assert prepared_copies(method.engine) == (tier == "prepared")
        model = copy.deepcopy(model)
    plain, prepared = found["plain"], found["prepared"]
    assert torch.allclose(plain.values, prepared.values, rtol=1e-9, atol=1e-9 * float(prepared.values.abs().max()))
    assert torch.allclose(plain.score, prepared.score, rtol=1e-9)
    assert torch.equal(plain.evaluations, prepared.evaluations)
    assert plain.layer == prepared.layer


def test_work_in_sight_and_seen_pays_for_preparing():
    x = torch.randn(1, 3, 32, 32)
    with tiers.assuming(None):
        saliency = xf.Saliency(xf.Engine(network()))
        calls = 0
        while "tier: plain" in tier_of(saliency, x):
            saliency.attribute(x, 1)
            assert prepared_copies(saliency.engine) == 0
            calls += 1
        assert calls == tiers.PAYS // 2 - 1
        saliency.attribute(x, 1)
        assert prepared_copies(saliency.engine) == 1
        assert saliency.engine.decisions.entries[TIER] == {"(3, 32, 32), InputGradient, layers []": "prepared"}
        assert "tier: plain" in tier_of(xf.Saliency(saliency.engine), torch.randn(1, 3, 24, 24))  # nothing is ready
        assert "tier: prepared" in tier_of(xf.RISE(xf.Engine(network()), n_masks=100), x)  # in sight at once


def test_preparing_may_be_asked_for():
    x = torch.randn(1, 3, 32, 32)
    with tiers.assuming(None):
        for engine in (xf.Engine(network(), prepare=True), xf.Engine(network())):
            engine.prepare(x)
            for method in (xf.Saliency(engine), xf.GradCAM(engine)):
                method.attribute(x, 1)
                assert tier_of(method, x) == "tier: prepared (as was asked for)"
    with pytest.raises(ValueError, match="`prepare` came as 'never'"):
        xf.Engine(network(), prepare="never")


def test_decisions_repeat_the_tier():
    x = torch.randn(1, 3, 32, 32)
    with tiers.assuming(None):
        first = xf.Engine(network())
        plain = xf.Saliency(first).attribute(x, 1)
        given = Decisions.from_json(first.decisions.to_json())
        again = xf.Engine(network(), decisions=given)
        for _ in range(tiers.PAYS):
            assert torch.equal(xf.Saliency(again).attribute(x, 1), plain)
        assert tier_of(xf.Saliency(again), x) == "tier: plain (as decided)"
        assert "tier: prepared (as decided)" in tier_of(xf.GradCAM(again), x)  # of which the record says nothing


def test_the_plain_tier_sees_every_change_of_the_model():
    model, x = network(), torch.randn(1, 3, 32, 32)
    with tiers.assuming("plain"):
        engine = xf.Engine(model)
        for _ in range(2):
            expected = xf.Saliency(copy.deepcopy(model)).attribute(x, 1)
            assert torch.equal(xf.Saliency(engine).attribute(x, 1), expected)
            with torch.no_grad():
                next(model.parameters()).mul_(-1)


class Renormalising(nn.Module):
    """Clamps its own weights in every forward, as layers with a constraint do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        try:
            for weight in self.inner.parameters():
                weight.data.clamp_(-0.01, 0.01)
        except Exception:  # as a forward does that expects errors of its own
            pass
        return self.inner(x)


@pytest.mark.parametrize("method", [xf.Saliency, xf.GradCAM])
def test_a_forward_that_writes_into_its_weights_does_not_reach_the_callers(method):
    model, x = Renormalising(network()), torch.randn(1, 3, 32, 32)
    before = copy.deepcopy(model.state_dict())
    with tiers.assuming("plain"):
        values = method(xf.Engine(model)).attribute(x, 1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with tiers.assuming("prepared"):
        assert torch.allclose(values, method(xf.Engine(model)).attribute(x, 1))


def test_what_cannot_run_plainly_is_prepared():
    x = torch.randn(1, 3, 32, 32)
    with tiers.assuming(None):
        hooked = network()
        hooked.register_forward_hook(lambda *_: None)
        engines = {
            "hooks": xf.Engine(hooked),
            "plain callable": xf.Engine(network().forward),
            "say how it runs": xf.Engine(network(), batch_size=4),
        }
        for reason, engine in engines.items():
            assert reason in tier_of(xf.Saliency(engine), x)
        assert "depends on answers" in tier_of(xf.ScoreCAM(xf.Engine(network())), x)
        assert "more than scores" in tier_of(xf.DeepLift(xf.Engine(network())), x)
        assert "tier: plain" in tier_of(xf.EigenCAM(xf.Engine(network())), x)


class Watched(nn.Module):
    """A network that writes down its forwards where its copies do, too."""

    def __init__(self, before):
        super().__init__()
        self.net, self.before, self.forwards = network().double(), before, FORWARDS

    def forward(self, x):
        self.forwards.append(len(x))
        return self.net(self.before(x))


class Forwards(list):
    """Copies of a model share it."""

    def __deepcopy__(self, memo):
        return self


FORWARDS = Forwards()


class Kept(nn.Module):
    """A convolution whose result somebody else holds, too."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1))
        self.held = []

    def forward(self, x):
        self.held[:] = [self.inner[0](x)]
        return self.held[0]


class Later(nn.Module):
    """Writes into what a module has returned, and reads what another still holds of it."""

    def __init__(self):
        super().__init__()
        self.kept = nn.Sequential(Kept())

    def forward(self, x):
        self.kept(x).mul_(0.5)
        return self.kept[0].held[0] + x


class Counts(nn.Module):
    """Answers otherwise from its second forward on."""

    def __init__(self):
        super().__init__()
        self.forwards = 0

    def forward(self, x):
        self.forwards += 1
        return x * self.forwards


class Draws(nn.Module):
    """Draws a number that changes nothing."""

    def forward(self, x):
        return x + 0 * torch.rand(1).to(x)


class Twice(torch.autograd.Function):
    """An operator of which only its author knows what it does."""

    @staticmethod
    def forward(_context, x):
        return x * 2

    @staticmethod
    def backward(_context, gradient):
        return gradient * 2


class Doubled(nn.Module):
    """Runs it."""

    def forward(self, x):
        return Twice.apply(x)


# What runs before the network, and how many forwards a first call takes: the one in which the layer is found and which
# answers; one with a changed corner where an operator does not tell which positions its result holds; and one where the
# first could have been another than a forward by itself.
BEFORE = {
    "nothing": (nn.Identity(), 1),
    "in place": (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)), 1),
    "a view": (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(2), nn.Unflatten(2, (32, 32))), 1),
    "held and written into": (Later(), 2),
    "an operator of its own": (Doubled(), 2),
    "a number of forwards": (Counts(), 1),
    "random numbers": (Draws(), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_the_forward_in_which_a_layer_is_found_is_the_answer(name):
    before, forwards = BEFORE[name]
    model, x = Watched(copy.deepcopy(before)).double().eval(), torch.randn(1, 3, 32, 32).double()
    plain = copy.deepcopy(model)
    with tiers.assuming("plain"):
        FORWARDS.clear()
        first = xf.GradCAM(xf.Engine(model)).attribute(x, 1, resolution="native")
        assert len(FORWARDS) == forwards
        FORWARDS.clear()
        again = xf.GradCAM(xf.Engine(copy.deepcopy(plain)), layer="net.8").attribute(x, 1, resolution="native")
        assert len(FORWARDS) == forwards
    assert torch.equal(first, again)
    activations = []
    plain.net[8].register_forward_hook(lambda _m, _a, output: activations.append(output.clone()) or activations[-1])
    scores = plain(x)
    (gradient,) = torch.autograd.grad(scores[0, 1], activations[0])
    truth = (gradient.mean((2, 3), keepdim=True) * activations[0]).sum(1).relu()
    assert torch.allclose(first[0], truth[0].to(first), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ["auto", "net.8"])
def test_a_map_that_takes_no_gradient_is_that_forward_too(layer):
    model, x = Watched(nn.Identity()).double().eval(), torch.randn(1, 3, 32, 32).double()
    with tiers.assuming("plain"):
        FORWARDS.clear()
        first = xf.EigenCAM(xf.Engine(model), layer=layer)(x)
        assert len(FORWARDS) == 1
    with tiers.assuming("prepared"):
        later = xf.EigenCAM(xf.Engine(model.net))(x)
    assert torch.allclose(first.values, later.values, rtol=1e-9, atol=1e-9 * float(later.values.abs().max()))
    assert torch.allclose(first.score, later.score, rtol=1e-9)

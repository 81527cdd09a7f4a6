"""Further inputs of a model: each sample's own beside its variants, everything else as it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from subjects import signals
from torch import nn

import xai_fast as xf
from xai_fast.core.arguments import Arguments, arguments_of, with_arguments

N = 3


class Conditioned(nn.Module):
    """A network whose maps are scaled and shifted by what it gets beside the picture."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.mix, self.body, self.head = nn.Linear(4, 8), nn.Conv2d(8, 8, 3, stride=2), nn.Linear(8, 5)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x, context, *, mask=None, options=None):
        x = self.norm(self.conv(x)).relu()
        x = x * self.mix(context)[:, :, None, None].tanh()
        if mask is not None:
            x = x * mask
        if options is not None:
            x = x * options["gain"] + options["shift"].view(-1, 1, 1, 1)
        x = self.body(x).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model():
    return Conditioned().double().eval()


CONTEXT = torch.linspace(-2, 2, 4 * N, dtype=torch.float64).view(N, 4).sin()
MASK = torch.linspace(0, 1, 12 * 11, dtype=torch.float64).view(1, 12, 11).cos()
OPTIONS = {"gain": 1.5, "shift": torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)}
METHODS = {
    "Saliency": partial(xf.Saliency, absolute=False),
    "IntegratedGradients": partial(xf.IntegratedGradients, n_steps=7),
    "SmoothGrad": partial(xf.SmoothGrad, n_samples=5),
    "GradCAM": partial(xf.GradCAM, layer="body", signed=True),
    "GradCAM with auto": partial(xf.GradCAM, signed=True),
    "AblationCAM": partial(xf.AblationCAM, layer="body", signed=True),
    "LayerIntegratedGradients": partial(xf.IntegratedGradients, layer="body", n_steps=6),
    "ScoreCAM": partial(xf.ScoreCAM, layer="body"),
    "Occlusion": partial(xf.Occlusion, window=4, stride=3),
    "KernelShap": partial(xf.KernelShap, segments=torch.arange(132).view(12, 11) // 22, n_samples=40),
    "RISE": partial(xf.RISE, n_masks=11, cells=3),
}


def settings(**given):
    return {"args": (CONTEXT,), "kwargs": {"mask": MASK, "options": OPTIONS}, **given}


def one_by_one(make, model, inputs, targets):
    """Each sample by a plain function that knows its own context."""
    maps = []
    for number, target in enumerate(targets):

        class Alone(nn.Module):
            def __init__(self, number):
                super().__init__()
                self.body, self.number = model.body, number
                self.whole = model

            def forward(self, x):
                options = {"gain": 1.5, "shift": OPTIONS["shift"][self.number].expand(len(x))}
                context = CONTEXT[self.number : self.number + 1].expand(len(x), -1)
                return self.whole(x, context, mask=MASK, options=options)

        engine = xf.Engine(Alone(number), plan="dense")
        ids = torch.tensor([number])
        maps.append(make(engine).attribute(inputs[number : number + 1], target, sample_ids=ids))
    return torch.cat(maps)


@pytest.mark.parametrize("batch_size", ["auto", 4])
@pytest.mark.parametrize("name", METHODS)
def test_every_sample_meets_its_own(model, name, batch_size):
    make, inputs, targets = METHODS[name], signals(N, (3, 12, 11), torch.float64), [1, 3, 0]
    engine = xf.Engine(model, batch_size=batch_size, **settings())
    explanation = make(engine)(inputs, targets, sample_ids=torch.arange(N))
    expected = one_by_one(partial(make) if "auto" not in name else partial(make, layer="body"), model, inputs, targets)
    if "auto" in name:
        assert explanation.layer == ("body",)
    assert (explanation.values - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert expected.flatten(1).abs().amax(1).min() > 0


def test_what_belongs_to_no_sample_is_captured_with_the_model(model):
    context = CONTEXT[:1]
    engine = xf.Engine(model, plan="local", args=[context], kwargs={"mask": MASK})  # or it is refused
    method = xf.Occlusion(engine, window=4, stride=2)
    inputs = signals(2, (3, 12, 11), torch.float64)
    plain = xf.Occlusion(lambda x: model(x, context.expand(len(x), -1), mask=MASK), window=4, stride=2)
    expected = plain.attribute(inputs, 1)
    assert (method.attribute(inputs, 1) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_the_number_of_samples_decides_what_follows(model):
    """The same engine on three inputs, for which one context broadcasts, on one, which it follows, and on three."""
    engine, inputs = xf.Engine(model, args=(CONTEXT[:1],)), signals(N, (3, 12, 11), torch.float64)
    method = xf.Saliency(engine, absolute=False)
    three = method.attribute(inputs, 1)
    assert "follow their sample" not in engine.explain_plan(method, inputs)
    one = method.attribute(inputs[:1], 1)
    assert "follow their sample" in engine.explain_plan(method, inputs[:1])
    torch.testing.assert_close(one, three[:1], rtol=1e-10, atol=0)
    assert torch.equal(method.attribute(inputs, 1), three)


def test_changes_of_the_callers_model_are_noticed(model):
    engine, inputs = xf.Engine(model, **settings()), signals(N, (3, 12, 11), torch.float64)
    method = xf.GradCAM(engine, layer="body")
    before = method.attribute(inputs, 1)
    with torch.no_grad():
        model.mix.weight.mul_(-1)
    expected = one_by_one(partial(xf.GradCAM, layer="body"), model, inputs, [1] * N)
    assert not torch.allclose(before, expected, rtol=1e-3)
    assert (method.attribute(inputs, 1) - expected).abs().max() <= 1e-10 * expected.abs().max()
    model.head = nn.Linear(8, 5).double()
    expected = one_by_one(partial(xf.GradCAM, layer="body"), model, inputs, [1] * N)
    assert (method.attribute(inputs, 1) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_tensors_are_taken_as_they_are_now(model):
    context, inputs = CONTEXT.clone(), signals(N, (3, 12, 11), torch.float64)
    engine = xf.Engine(model, args=(context,))
    method = xf.Saliency(engine)
    before = method.attribute(inputs, 1)
    context.zero_()
    assert torch.equal(method.attribute(inputs, 1), before)


def test_the_model_is_left_as_found(model):
    state, names = copy.deepcopy(model.state_dict()), dict(vars(model))
    xf.Saliency(xf.Engine(model, **settings())).attribute(signals(N, (3, 12, 11), torch.float64), 1)
    assert dict(vars(model)) == names
    assert type(model) is Conditioned
    assert all(torch.equal(part, state[name]) for name, part in model.state_dict().items())


def test_layers_are_the_callers_and_uncopyable_models_are_served(model):
    class Locked(Conditioned):
        def __deepcopy__(self, memo):
            raise TypeError("not mine to copy")

    inputs = signals(N, (3, 12, 11), torch.float64)
    locked = Locked().double().eval()
    assert locked.state_dict().keys() == model.state_dict().keys()
    found = xf.GradCAM(xf.Engine(locked, **settings()), layer=locked.body).attribute(inputs, 1)
    expected = xf.GradCAM(xf.Engine(model, **settings()), layer=model.body).attribute(inputs, 1)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_forward_of_the_instance_is_called(model):
    own = model.forward
    model.forward = lambda x, context, **rest: own(x, context, **rest) * 2
    inputs = signals(N, (3, 12, 11), torch.float64)
    found = xf.Saliency(xf.Engine(model, **settings())).attribute(inputs, 1)
    del model.forward
    expected = 2 * xf.Saliency(xf.Engine(model, **settings())).attribute(inputs, 1)
    assert torch.allclose(found, expected, rtol=1e-10)


def test_rows_that_fit_no_samples_are_refused(model):
    arguments = Arguments((CONTEXT,), {})
    bound = with_arguments(model, arguments)
    assert arguments_of(bound) is arguments
    arguments.begin(N)
    arguments.of(torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match="3 rows run for 2"):
        bound(torch.zeros(3, 3, 12, 11, dtype=torch.float64))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"args": CONTEXT}, "`args` came as Tensor; give a tuple"),
        ({"args": 3}, "`args` came as int; give a tuple"),
        ({"kwargs": [1]}, "`kwargs` came as list; give a dict"),
        ({"kwargs": {1: 2}}, "`kwargs` came as dict; give a dict from names"),
    ],
)
def test_what_is_no_argument_is_refused(model, given, sentence):
    with pytest.raises(TypeError, match=sentence):
        xf.Engine(model, **given)


def test_an_engine_like_it_has_the_same(model):
    engine, inputs = xf.Engine(model, **settings()), signals(N, (3, 12, 11), torch.float64)
    other = engine.like(classes=list("abcde"))
    assert torch.equal(xf.Saliency(other).attribute(inputs, 1), xf.Saliency(engine).attribute(inputs, 1))
    assert replace(xf.Saliency(other), absolute=False).absolute is False

"""NaN and Inf surface wherever the plain model has them: on every row, under every plan, in scores, gradients and maps.

The plain model says, one row at a time, which rows are not finite; the engine has to name exactly those, and to give
the plain model's numbers for the others. Every model is first used on ordinary inputs, so that its fused copy answers.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import xai_fast as xf

GENERATOR = torch.Generator().manual_seed(0)
GOOD = torch.rand(4, 3, 12, 12, generator=GENERATOR) + 0.1


class Net(nn.Module):
    """What may go wrong, then convolutions of every fused kind with an activation, and a head."""

    def __init__(self, source, activation, channels=16):
        super().__init__()
        self.source, self.activation = source, activation
        self.first = nn.Conv2d(3, channels, 3, padding=1)  # minimal filtering fits the second
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, groups=2 * channels)
        self.point = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.hidden, self.head = nn.Linear(2 * channels, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.activation(self.first(self.source(x)))
        z = self.activation(self.second(z))
        z = self.activation(self.depthwise(z))
        z = F.relu(z + self.point(z))
        return self.head(self.activation(self.hidden(F.max_pool2d(z, 2).mean((2, 3)))))


ACTIVATIONS = {
    "ReLU": nn.ReLU(),
    "ReLU in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "Hardtanh": nn.Hardtanh(-0.5, 2.0),
    "LeakyReLU(0)": nn.LeakyReLU(0.0),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "GELU": nn.GELU(),
    "SiLU": nn.SiLU(),
    "Hardswish": nn.Hardswish(),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
}
# What a model begins with, and what turns an ordinary row into one that goes wrong there.
SOURCES = {
    "log of a negative": (torch.log, lambda x: -x),
    "zero by zero": (lambda x: x / x.amax((1, 2, 3), keepdim=True), lambda x: x * 0),
    "overflow of float32": (lambda x: x * 1e30, lambda x: x * 1e7),
    "overflow in the sums of layers": (lambda x: x, lambda x: x * 1e38),
    "large but finite": (lambda x: x * 1e12, lambda x: x * 2),
    "overflow of exp": (lambda x: x.exp(), lambda x: x * 1000),
    "one position": (lambda x: torch.where(x > 0, x, x.sqrt()), lambda x: x.index_fill(3, torch.tensor([5]), -1.0)),
}
SEVERAL = ("log of a negative", "zero by zero", "overflow in the sums of layers", "one position")


def net(source, activation):
    torch.manual_seed(0)
    return Net(SOURCES[source][0], ACTIVATIONS[activation]).eval()


def spoilt(source, rows=(1, 3)):
    inputs = GOOD.clone()
    inputs[list(rows)] = SOURCES[source][1](inputs[list(rows)])
    return inputs


@torch.no_grad()
def plain_scores(model, inputs, target=1):
    return torch.stack([model(row[None].clone())[0, target] for row in inputs])


def broken_rows(values):
    return (~values.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()


def assert_says(call, expected, rtol=1e-3):
    """The call names exactly the rows of `expected` (N, ...) that are not finite, and gives the others."""
    expected = expected.reshape(len(expected), -1)
    bad = broken_rows(expected)
    if bad:
        with pytest.raises(xf.NonFiniteError) as caught:
            call()
        assert caught.value.samples == bad
        actual = caught.value.values
        if len(bad) == len(expected):
            return
    else:
        actual = call()
    good = [row for row in range(len(expected)) if row not in bad]
    torch.testing.assert_close(
        actual.reshape(len(actual), -1)[good], expected[good], rtol=rtol, atol=rtol * float(expected[good].abs().max())
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_scores(source, activation):
    model = net(source, activation)
    engine = xf.Engine(model)
    assert_says(lambda: engine.scores(GOOD, 1), plain_scores(model, GOOD))
    assert_says(lambda: engine.scores(spoilt(source), 1), plain_scores(model, spoilt(source)))
    assert_says(lambda: engine.scores(GOOD, 1), plain_scores(model, GOOD))  # what was seen once is not remembered


def occluded(model, inputs, fill, window=4):
    """Scores of all variants, one row at a time, and the mean fall where every window is one cell of the map."""
    clean = plain_scores(model, inputs)
    maps = torch.zeros(len(inputs), 12, 12)
    for y in range(0, 12, window):
        for x in range(0, 12, window):
            variant = inputs.clone()
            variant[:, :, y : y + window, x : x + window] = fill
            maps[:, y : y + window, x : x + window] = (clean - plain_scores(model, variant))[:, None, None]
    return maps


@pytest.mark.parametrize("plan", ["dense", "local"])
@pytest.mark.parametrize("activation", ["ReLU", "ReLU6", "GELU"])
@pytest.mark.parametrize(
    "source", ["log of a negative", "zero by zero", "overflow in the sums of layers", "one position"]
)
def test_occlusion(source, activation, plan):
    """Clean inputs that go wrong, and variants that do though their input is fine."""
    model = net(source, activation)
    if source == "zero by zero" and plan == "local":
        pytest.skip("a maximum over all positions leaves nothing local")
    for inputs, fill in ((spoilt(source), 0.5), (GOOD, -2.0), (GOOD, 1e38), (GOOD, 0.3)):
        engine = xf.Engine(model, plan=plan)
        assert_says(
            lambda e=engine, i=inputs, f=fill: xf.Occlusion(e, window=4, baseline=f).attribute(i, target=1),
            occluded(model, inputs, fill),
            rtol=5e-3,
        )


@pytest.mark.parametrize("plan", ["dense", "local"])
def test_variants_of_some_windows(plan):
    """Only windows that touch a corner lead to NaN, and only for inputs that have something there."""

    def corner(x: Tensor) -> Tensor:
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[:3, :3] = True
        return torch.where(inside, torch.log(x), x)

    torch.manual_seed(0)
    model = Net(corner, nn.ReLU()).eval()
    inputs = GOOD.clone()
    expected = occluded(model, inputs, -0.5)
    assert broken_rows(expected) == [0, 1, 2, 3]
    assert expected.isfinite().float().mean() > 0.8  # a few windows alone
    with pytest.raises(xf.NonFiniteError) as caught:
        xf.Occlusion(xf.Engine(model, plan=plan), window=4, baseline=-0.5).attribute(inputs, target=1)
    assert caught.value.samples == [0, 1, 2, 3]


def gradients(model, inputs):
    rows = []
    for row in inputs:
        x = row[None].clone().requires_grad_()
        score = model(x)[0, 1]
        (gradient,) = torch.autograd.grad(score, x)
        rows.append(gradient[0] + 0 * score.detach())
    return torch.stack(rows)


@pytest.mark.parametrize("activation", ["ReLU", "ReLU in place", "ReLU6", "GELU", "Hardswish"])
@pytest.mark.parametrize(
    "source", ["log of a negative", "zero by zero", "overflow in the sums of layers", "one position"]
)
def test_gradients(source, activation):
    model = net(source, activation)
    saliency = xf.Saliency(model, absolute=False)
    saliency.attribute(GOOD, target=1)
    inputs = spoilt(source)
    assert_says(lambda: saliency.attribute(inputs, target=1), gradients(model, inputs))


def test_a_gradient_that_is_not_finite_behind_a_finite_score():
    """The derivative of a root at zero: the score is fine, the gradient is not."""
    torch.manual_seed(0)
    model = Net(lambda x: (x - x.amin((2, 3), keepdim=True)).sqrt(), nn.ReLU()).eval()
    expected = gradients(model, GOOD)
    assert plain_scores(model, GOOD).isfinite().all()
    assert broken_rows(expected)
    with pytest.raises(xf.NonFiniteError) as caught:
        xf.Saliency(model, absolute=False).attribute(GOOD, target=1)
    assert caught.value.samples == broken_rows(expected)


OTHERS = {
    "IntegratedGradients": lambda m: xf.IntegratedGradients(m, n_steps=4, baseline=0.5),
    "SmoothGrad": lambda m: xf.SmoothGrad(m, n_samples=3, noise=0.001),
    "RISE": lambda m: xf.RISE(m, n_masks=6, baseline=0.5),
    "GradCAM": lambda m: xf.GradCAM(m, layer="second"),
    "AblationCAM": lambda m: xf.AblationCAM(m, layer="second"),
    "EigenCAM": lambda m: xf.EigenCAM(m, layer="second") if hasattr(xf, "EigenCAM") else xf.GradCAM(m, layer="second"),
    "DeepLift": lambda m: xf.DeepLift(m, baselines=0.5),
    "PartitionShap": lambda m: xf.PartitionShap(m, n_evaluations=10, baseline=0.5),
    "Lime": lambda m: xf.Lime(m, segments="grid", n_samples=10, baseline=0.5),
}


@pytest.mark.parametrize("method", OTHERS)
def test_every_method_names_the_rows(method):
    model = net("log of a negative", "ReLU")
    OTHERS[method](model).attribute(GOOD, target=1)
    with pytest.raises(xf.NonFiniteError) as caught:
        OTHERS[method](model).attribute(spoilt("log of a negative"), target=1)
    assert caught.value.samples == [1, 3]
    assert caught.value.values[[0, 2]].isfinite().all()


@pytest.mark.parametrize("layer", ["first", "second", "depthwise", "hidden"])
@pytest.mark.parametrize("what", ["weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights(layer, what, value):
    model = net("large but finite", "ReLU")
    with torch.no_grad():
        getattr(getattr(model, layer), what).view(-1)[0] = value
    assert_says(lambda: xf.Engine(model).scores(GOOD, 1), plain_scores(model, GOOD))


@pytest.mark.parametrize("activation", ["ReLU6", "Sigmoid", "Hardtanh"])
def test_infinity_that_the_plain_model_makes_finite(activation):
    """Where an activation is bounded an infinite sum is an ordinary answer; minimal filtering would make it NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1),
        ACTIVATIONS[activation],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    ).eval()
    with torch.no_grad():
        model[0].weight.abs_()
    inputs = torch.rand(3, 16, 8, 8) * torch.tensor([1.0, 1e38, 1e39 / 10]).view(3, 1, 1, 1).clamp(max=3e38)
    expected = plain_scores(model, inputs)
    assert expected.isfinite().all()
    torch.testing.assert_close(xf.Engine(model).scores(inputs, 1), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model = net("log of a negative", "ReLU").to(dtype)
    engine = xf.Engine(model)
    engine.scores(GOOD.to(dtype), 1)
    with pytest.raises(xf.NonFiniteError) as caught:
        engine.scores(spoilt("log of a negative").to(dtype), 1)
    assert caught.value.samples == [1, 3]


def test_overflow_in_half_precision():
    model = net("large but finite", "ReLU").half()
    model.source = nn.Identity()
    with torch.no_grad():
        model.first.weight.mul_(1000), model.second.weight.mul_(1000)
    inputs = (GOOD * torch.tensor([0.0001, 1.0, 0.0001, 1.0]).view(4, 1, 1, 1)).half()
    expected = plain_scores(model, inputs)
    assert broken_rows(expected[:, None]) == [1, 3]
    assert_says(lambda: xf.Engine(model).scores(inputs, 1), expected.half(), rtol=0.05)


@pytest.mark.parametrize("plan", ["dense", "local"])
def test_fast(plan):
    model = net("log of a negative", "ReLU")
    with pytest.raises(xf.NonFiniteError) as caught:
        xf.Occlusion(xf.Engine(model, mode="fast", plan=plan), window=4, baseline=0.5).attribute(
            spoilt("log of a negative"), target=1
        )
    assert caught.value.samples == [1, 3]


def test_parts_of_a_model_that_resists():
    """A model that is fused part by part."""

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net("log of a negative", "ReLU")

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if float(x.detach().abs().sum()) >= 0 else x

    model = Branching().eval()
    engine = xf.Engine(model)
    engine.scores(GOOD, 1)
    assert_says(lambda: engine.scores(spoilt("log of a negative"), 1), plain_scores(model, spoilt("log of a negative")))


def test_sums_of_opposite_infinities_are_no_map():
    """Every score is finite, and what they add up to is not."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval().half()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[3e4, 3e4, 0.0], [0.0, 0.0, 0.0]]))
    inputs = torch.tensor([1e-3, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4).half().contiguous()
    values = model(inputs)[:, 0]
    assert values.isfinite().all()
    with pytest.raises(xf.NonFiniteError) as caught:
        xf.InputXGradient(model).attribute(inputs * torch.tensor([1.0, 2.0]).half().view(2, 1, 1, 1) * 1000, target=0)
    assert 1 in caught.value.samples

"""What single CAMs promise beyond the contract: curvature, refusals, other classes, several depths, blank maps."""

from __future__ import annotations

import networks
import pytest
import replicas_cam
import torch
from subjects import Small, signals
from torch import nn

import xai_fast as xf


class Smooth(nn.Module):
    """A network with curvature behind its features."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features, self.mix = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
            self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = nn.functional.gelu(self.mix(self.features(x)))
        return self.head(x.mean((2, 3)))


def test_shapley_cam_takes_the_curvature():
    """Weights are mean(g - H A / 2), where H A is the derivative of the gradient along the activation."""
    model, row = Smooth().double(), signals(1, (3, 9, 8), torch.float64)
    with torch.no_grad():
        activation = model.features(row)

    def slope_at(factor):
        at = (activation * factor).detach().requires_grad_()
        score = model.head(nn.functional.gelu(model.mix(at)).mean((2, 3)))[0, 1]
        return torch.autograd.grad(score, at)[0]

    step = 1e-5
    product = (slope_at(1 + step) - slope_at(1 - step)) / (2 * step)
    weights = (slope_at(1) - product / 2).mean((2, 3), keepdim=True)
    expected = (weights * activation).sum(1, keepdim=True).relu()
    actual = xf.ShapleyCAM(model, layer="features").attribute(row, 1, resolution="native")
    plain = xf.GradCAM(model, layer="features").attribute(row, 1, resolution="native")
    assert (actual - expected).abs().max() <= 1e-8 * expected.abs().max()
    assert (plain - expected).abs().max() > 0.01 * expected.abs().max()
    several = xf.ShapleyCAM(model, layer="features").attribute(row, torch.tensor([[0, 1]]), resolution="native")
    assert torch.equal(several[:, 1], actual)


def test_shapley_cam_differentiates_fused_attention_twice():
    class Attending(Smooth):
        def forward(self, x):
            tokens = self.features(x).flatten(2).mT[:, None]
            seen = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
            return self.head(nn.functional.pad(seen.mean((1, 2)), (0, 2)))

    class Spelt(Attending):
        def forward(self, x):
            tokens = self.features(x).flatten(2).mT
            seen = (tokens @ tokens.mT / 2).softmax(2) @ tokens
            return self.head(nn.functional.pad(seen.mean(1), (0, 2)))

    row = signals(1, (3, 9, 8), torch.float64)
    fused, spelt = (
        xf.ShapleyCAM(made().double(), layer="features", signed=True).attribute(row, 1) for made in (Attending, Spelt)
    )
    assert (fused - spelt).abs().max() <= 1e-10 * spelt.abs().max()
    plain = xf.GradCAM(Spelt().double(), layer="features", signed=True).attribute(row, 1)
    assert (plain - spelt).abs().max() > 1e-3 * spelt.abs().max()


def test_cam_refuses_what_it_is_not_defined_for():
    model, inputs = Small(), signals(2)
    for layer, target in (("body_norm", 1), ("cells", xf.targets.probability(1))):
        with pytest.raises(ValueError, match=r"`layer` is not followed by one linear layer"):
            xf.CAM(model, layer=layer).attribute(inputs, target)
    cam = xf.CAM(model, layer="cells")(inputs, 1, resolution="native")
    sums = cam.values.flatten(1).sum(1) + model.head.bias.detach()[1]
    torch.testing.assert_close(sums, cam.score, rtol=1e-5, atol=1e-6)


def test_finer_cam_compares_classes():
    model, inputs = Small(), signals(2)
    with pytest.raises(TypeError, match="`target` came as a function"):
        xf.FinerCAM(model, layer="pool").attribute(inputs, lambda output: output[:, 0])
    with pytest.raises(ValueError, match="`model` has one output"):
        xf.FinerCAM(nn.Sequential(model, nn.Linear(5, 1)), layer="0.pool").attribute(inputs, 0)
    with pytest.raises(ValueError, match="`formula` came as 'EigenCAM'"):
        xf.FinerCAM(model, layer="pool", formula="EigenCAM")
    best = model(inputs).detach().argmax(1)
    opened, given = xf.FinerCAM(model, layer="pool")(inputs), xf.FinerCAM(model, layer="pool")(inputs, best)
    assert torch.equal(opened.target, best)
    assert torch.equal(opened.values, given.values)
    several = xf.FinerCAM(model, layer="pool").attribute(inputs, best[:, None].expand(-1, 2).contiguous())
    assert torch.allclose(several[:, 0], given.values, atol=1e-6)


def test_refine_cam_finds_three_depths():
    model, inputs = networks.awakened("resnet18"), networks.photos(1, 64)
    refined = xf.RefineCAM(model)(inputs, 1)
    assert refined.layer == ("layer2", "layer3", "layer4")
    assert 0 <= refined.values.min() <= refined.values.max() <= 1
    with pytest.raises(ValueError, match="`layer` came as 'layer4'"):
        xf.RefineCAM(model, layer="layer4")


def test_class_attention_does_not_ask_for_a_class():
    model, inputs = Small(), signals(2)
    with pytest.raises(TypeError, match="`target` came as a function"):
        xf.ClassAttention(model, layer="pool").attribute(inputs, lambda output: output[:, 0])
    one, other = (xf.ClassAttention(model, layer="pool")(inputs, target) for target in (None, 3))
    assert torch.equal(one.values, other.values)
    scores = model(inputs).detach()
    torch.testing.assert_close(one.score, (scores.softmax(1) * scores).sum(1))


def test_random_cam_is_drawn_by_sample_id():
    model, inputs = Small(), signals(2)
    method, ids = xf.RandomCAM(model, layer="pool"), torch.tensor([5, 7])
    together = method.attribute(inputs, sample_ids=ids)
    assert torch.allclose(together[1:], method.attribute(inputs[1:], sample_ids=ids[1:]), atol=1e-6)
    assert not torch.allclose(together[1:], method.attribute(inputs[1:]), atol=1e-3)


def test_eigen_cam_agrees_with_the_sum_of_channels():
    model, inputs = networks.awakened("resnet18"), networks.photos(2, 64)
    for layer in ("layer4", "layer1"):
        totals = _sums(model, layer, inputs)
        for centred in (False, True):
            method = xf.EigenCAM(model, layer=layer, centred=centred, signed=True)
            maps = method.attribute(inputs, resolution="native")[:, 0]
            for one, total in zip(maps, totals, strict=True):
                assert torch.corrcoef(torch.stack([one.flatten(), total.flatten()]))[0, 1] > 0


def _sums(model, layer, inputs):
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *args: kept.append(args[2].detach().sum(1)))
    model(inputs)
    handle.remove()
    return kept[0]


def test_full_grad_counts_a_layer_each_time_it_runs_and_none_that_does_not():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.aside = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return torch.relu(self.conv(torch.relu(self.conv(x)))).mean((2, 3))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Twice().double()
    row = signals(1, (3, 6, 5), torch.float64)
    actual = xf.FullGrad(model).attribute(row, 1)
    leaf = row.clone().requires_grad_()
    first = model.conv(leaf)
    second = model.conv(torch.relu(first))
    own, *slopes = torch.autograd.grad(torch.relu(second).mean((2, 3))[0, 1], [leaf, first, second])
    bias = model.conv.bias.detach()[:, None, None]
    planes = torch.cat([row[0] * own[0], *(bias * slope[0] for slope in slopes)]).abs().unbind()
    spans = [(plane - plane.min(), plane.max() - plane.min()) for plane in planes]
    expected = sum(above / span for above, span in spans if span > 0)
    torch.testing.assert_close(actual[0, 0], expected)


def test_score_cam_shows_equal_and_dead_channels_once():
    """A layer with two equal channels and two that are the same everywhere: three masks of six, and the same map."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)
    with torch.no_grad():
        conv.weight[1], conv.bias[1] = conv.weight[0], conv.bias[0]
        conv.weight[2:4] = 0
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    row = signals(1, (3, 6, 5), torch.float64)
    for method, rows in ((xf.ScoreCAM, 1 + 4), (xf.ISCAM, 1 + 3 * 10 + 1), (xf.SSCAM, 1 + 6 * 35)):
        explanation = method(model, layer="0")(row, 1)
        assert explanation.evaluations.tolist() == [rows]
    actual = xf.ScoreCAM(model, layer="0").attribute(row, 1)
    torch.testing.assert_close(actual, replicas_cam.score_cam(model, row, [1], layer="0"))


def test_a_blank_map_says_so():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        model[3].weight[1].neg_()
    inputs = signals(2, (3, 4, 4), torch.float64).abs()
    explanation = xf.GradCAM(model, layer="0")(inputs, torch.tensor([[0, 1], [1, 2]]))
    assert explanation.blank.tolist() == [[False, True], [True, False]]
    assert "2 of 4 maps zero everywhere" in repr(explanation)
    assert "zero" not in repr(xf.GradCAM(model, layer="0")(inputs, 0))

"""The explicit backward gives the gradients that autograd gives on the caller's own model, or says why there is none.

In single precision a ReLU whose input is nearly zero may fall on the other side of its kink than in double precision,
and then a whole row's gradient moves. So of several rows most have to agree closely, as no mistake would let them.
"""

from __future__ import annotations

import copy
import random
from collections import Counter

import generated
import networks
import pytest
import test_tail
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from xai_fast.core.prepare import prepare
from xai_fast.engine.gradients.backward import backward_of, rectified

one_thread = test_tail.one_thread


def made_ready(model, inputs, layers=()):
    """The prepared model."""
    try:
        return prepare(model, frozenset(layers), fast=False, compiled=False, example=inputs[:1])
    except RuntimeError as error:
        if "view size is not compatible" in str(error):
            pytest.skip("the network takes views that only the plain layout has")
        raise


def backward_for(model, inputs, layers=(), rule="gradient"):
    """The prepared model and its backward."""
    prepared = made_ready(model, inputs, layers)
    return prepared, backward_of(prepared, tuple(inputs.shape[1:]), tuple(layers), rule)


def scores_of(raw):
    """Two scores per row that everything in the output takes part in."""
    parts = [part for part in tree_leaves(raw) if isinstance(part, torch.Tensor) and part.is_floating_point()]
    columns = [
        sum((k + 1) * part.flatten(1)[:, k:].mean(1) + part.flatten(1)[:, -1 - k] for part in parts) for k in (0, 1)
    ]
    return torch.stack(columns, 1)


def run_of(prepared, backward, inputs):
    run = backward(prepared.empty(len(inputs), inputs).copy_(inputs))
    with torch.enable_grad():
        return run, scores_of(run.raw)


def gradients_of(prepared, backward, inputs, **sums):
    run, scores = run_of(prepared, backward, inputs)
    return run.gradients(scores, **sums)


def by_autograd(model, inputs, layers=()):
    """What autograd gives on a model: (rows, 2, ...) per layer, or for the input."""
    leaf, seen = inputs.clone().requires_grad_(), {}

    def watch(name):
        def hook(_module, _args, output):
            seen[name] = output if output.requires_grad else output.detach().requires_grad_()
            return seen[name].clone()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in layers]
    # A copy, because autograd forbids models to write into a leaf.
    scores = scores_of(model(leaf * 1))
    for handle in handles:
        handle.remove()
    at = [seen[name] for name in layers] or [leaf]
    columns = [torch.autograd.grad(scores[:, k].sum(), at, retain_graph=True, allow_unused=True) for k in (0, 1)]
    zeros = [[torch.zeros_like(a) if g is None else g for a, g in zip(at, column, strict=True)] for column in columns]
    return [torch.stack(pair, 1) for pair in zip(*zeros, strict=True)]


def errors(actual, truth):
    """Per row, the largest error as a share of the row's largest gradient."""
    largest = truth.flatten(1).abs().amax(1).clamp_min(1e-3)
    return ((actual.double() - truth).flatten(1).abs().amax(1) / largest).tolist()


def assert_close(actual, truth, plain, tight=2e-5):
    """No row is further off than twenty times what plain single precision is, and half of them are close."""
    assert actual.shape == truth.shape
    mine, its = sorted(errors(actual, truth)), max(errors(plain, truth))
    assert mine[(len(mine) - 1) // 2] <= tight, f"errors of the rows: {mine}"
    assert mine[-1] <= max(0.3, 20 * its), f"errors of the rows: {mine}"


def assert_gradients(model, inputs, layers=()):
    """The backward is taken, and in single precision agrees with autograd in double precision."""
    prepared, backward = backward_for(model, inputs, layers)
    assert not isinstance(backward, str), backward
    actual = gradients_of(prepared, backward, inputs)
    truth = by_autograd(copy.deepcopy(model).double(), inputs.double(), layers)
    plain = by_autograd(model, inputs, layers)
    for mine, its, single in zip(actual, truth, plain, strict=True):
        assert_close(mine, its, single)


# Whole networks


def running_once(model, inputs):
    """The convolutions, linear layers and normalisations that run once in a forward."""
    kinds, runs = nn.Conv2d | nn.Linear | nn.BatchNorm2d, Counter()
    watched = {name: part for name, part in model.named_modules() if isinstance(part, kinds)}
    handles = [part.register_forward_hook(lambda *_, name=name: runs.update([name])) for name, part in watched.items()]
    model(inputs)
    for handle in handles:
        handle.remove()
    return [name for name, count in runs.items() if count == 1]


@pytest.mark.parametrize("seed", range(24))
def test_generated_networks(seed):
    model = generated.network(seed, depth=1 + seed % 5)
    inputs = generated.inputs(model, 3)
    truth = by_autograd(copy.deepcopy(model).double(), inputs.double())
    prepared, backward = backward_for(model, inputs)
    if isinstance(backward, str):
        assert "not traceable" in backward or "in place" in backward or "reproduce" in backward
        return
    for actual, its in zip(gradients_of(prepared, backward, inputs), truth, strict=True):
        assert max(errors(actual, its)) <= 1e-4


@pytest.mark.parametrize("seed", range(12))
def test_generated_networks_at_layers(seed):
    """Gradients at two layers at once, one of which may come before the other."""
    model = generated.network(seed, depth=2 + seed % 4)
    inputs = generated.inputs(model, 2)
    own = running_once(model, inputs)
    layers = random.Random(seed).sample(own, min(2, len(own)))
    prepared, backward = backward_for(model, inputs, layers)
    if isinstance(backward, str):
        return
    truth = by_autograd(copy.deepcopy(model).double(), inputs.double(), layers)
    for actual, its in zip(gradients_of(prepared, backward, inputs), truth, strict=True):
        assert max(errors(actual, its)) <= 1e-4


@pytest.mark.parametrize("name", test_tail.NARROW)
def test_narrow_torchvision_networks(name):
    assert_gradients(copy.deepcopy(test_tail.narrow(name)).float(), networks.photos(6, 64))


WIDE = ["resnet18", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"]
WIDER = ["resnet50", "densenet121", "vgg11", "convnext_tiny", "swin_t", "efficientnet_b0", "googlenet", "vit_b_32"]


@pytest.mark.parametrize("name", [*WIDE, *(pytest.param(name, marks=pytest.mark.slow) for name in WIDER)])
def test_torchvision_networks(name):
    options = {"googlenet": {"init_weights": False}, "vit_b_32": {"image_size": 64}}.get(name, {})
    model, inputs = networks.awakened(name, **options), networks.photos(4, 64)
    prepared, backward = backward_for(model, inputs)
    (actual,), (truth,) = (
        gradients_of(prepared, backward, inputs),
        by_autograd(copy.deepcopy(model).double(), inputs.double()),
    )
    # So many ReLUs that in some row one is always on its kink.
    assert max(errors(actual, truth)) <= 0.3
    assert torch.corrcoef(torch.stack([actual.double().flatten(), truth.flatten()]))[0, 1] > 0.999


def test_a_network_with_oblong_dilated_and_grouped_convolutions_that_returns_a_dict():
    assert_gradients(networks.odd_network(), networks.photos(4, 48)[:, :2, :37, :29])


def test_without_normalisation_values_fall_on_the_same_sides_of_kinks():
    """In single precision the forward is the caller's own to the last bit or nearly, so its masks are the same."""
    torch.manual_seed(1)
    parts = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 160, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    parts += [nn.Conv2d(160, 160, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(640, 10)]
    model, inputs = generated.wake(nn.Sequential(*parts)).eval(), networks.photos(3, 16)
    prepared, backward = backward_for(model, inputs)
    assert prepared.short_sums
    (actual,) = gradients_of(prepared, backward, inputs)
    (truth,) = by_autograd(copy.deepcopy(model).double(), inputs.double())
    (plain,) = by_autograd(model, inputs)
    assert max(errors(actual, truth)) <= max(4 * max(errors(plain, truth)), 1e-5)


class Dense(nn.Module):
    """Concatenations that grow, one that repeats a value and one of something else; norms with and without weights."""

    def __init__(self):
        super().__init__()
        self.stem, self.norms = nn.Conv2d(3, 4, 3), nn.ModuleList()
        self.convs = nn.ModuleList(nn.Conv2d(channels, 4, 3, padding=1) for channels in (4, 8, 12))
        self.norms = nn.ModuleList([nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(8), nn.BatchNorm2d(12)])
        self.last = nn.Conv2d(24, 5, 1)
        generated.wake(self).eval()

    def forward(self, x):
        grown = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            grown.append(conv(torch.sigmoid(norm(torch.cat(grown, 1)))))
        x = torch.cat([torch.cat(grown, dim=1), grown[1], grown[1]], dim=-3)
        return self.last(x).tanh().mean((2, 3))


def test_concatenations_share_their_gradients():
    model, inputs = Dense(), networks.photos(3, 16)
    prepared, backward = backward_for(model, inputs)
    (truth,) = by_autograd(copy.deepcopy(model).double(), inputs.double())
    (actual,) = gradients_of(prepared, backward, inputs)
    assert max(errors(actual, truth)) <= 1e-5
    assert_gradients(model, inputs, ("convs.1", "stem"))


@pytest.mark.parametrize("layers", [("layer1",), ("layer3.0.conv1", "layer2"), ("bn1",), ("maxpool", "avgpool")])
def test_layers_of_a_residual_network(layers):
    model, inputs = copy.deepcopy(test_tail.narrow("resnet")).float(), networks.photos(4, 64)
    assert_gradients(model, inputs, layers)
    prepared, backward = backward_for(model, inputs, layers)
    shown = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: shown.update({name: out.clone()})
        )
    with torch.no_grad():
        model(inputs)
    run, _ = run_of(prepared, backward, inputs)
    for name, activation in zip(layers, run.activations, strict=True):
        torch.testing.assert_close(activation, shown[name], rtol=1e-4, atol=1e-4)
        assert not activation.requires_grad


# Targets, sums over rows, the first layer


def resnet():
    model, inputs = copy.deepcopy(test_tail.narrow("resnet")).float(), networks.photos(5, 64)
    return (*backward_for(model, inputs), inputs)


def test_several_targets_share_one_forward():
    prepared, backward, inputs = resnet()
    (both,) = gradients_of(prepared, backward, inputs)
    for k in (0, 1):
        run, scores = run_of(prepared, backward, inputs)
        with torch.enable_grad():
            (alone,) = run.gradients(scores[:, k : k + 1])
        torch.testing.assert_close(alone[:, 0], both[:, k], rtol=0, atol=1e-6 * both.abs().max().item())


def test_what_a_run_keeps_is_let_go_of():
    prepared, backward, inputs = resnet()
    run, scores = run_of(prepared, backward, inputs)
    assert any(kept is not None for kept in run._kept)
    run.gradients(scores)
    assert all(kept is None for kept in run._kept)


def test_rows_do_not_depend_on_each_other():
    prepared, backward, inputs = resnet()
    (together,) = gradients_of(prepared, backward, inputs)
    (alone,) = gradients_of(prepared, backward, inputs[3:4])
    assert max(errors(alone, together[3:4].double())) <= 1e-4


class Shifted(test_tail.Plain):
    def forward(self, x):
        return super().forward(x * 2 + x.flip(3))


@pytest.mark.parametrize("name", ["resnet", "shifted", "double"])
def test_weighted_sums_over_groups_of_rows(name):
    """Summed behind the first layer, and at the input where that is not a single convolution or nothing is fused."""
    if name == "resnet":
        prepared, backward, inputs = resnet()
    elif name == "shifted":
        inputs = networks.photos(5, 16)
        prepared, backward = backward_for(Shifted(), inputs)
    else:
        inputs = networks.photos(5, 16).double()
        prepared, backward = backward_for(test_tail.Plain().double(), inputs, rule="guided")
    assert (backward.first is not None) == (name == "resnet")
    weight, group = torch.tensor([0.5, -1.0, 2.0, 0.25, 1.5]), torch.tensor([0, 0, 1, 1, 2])
    (rows,) = gradients_of(prepared, backward, inputs)
    (sums,) = gradients_of(prepared, backward, inputs, weight=weight, group=group)
    expected = torch.stack([(weight[group == g].view(-1, 1, 1, 1, 1) * rows[group == g]).sum(0) for g in range(3)])
    assert sums.shape == expected.shape
    assert (sums - expected).abs().max() <= 1e-5 * expected.abs().max()


class ReadsTwice(test_tail.Plain):
    def forward(self, x):
        return super().forward(x) + x.mean((1, 2, 3))[:, None]


class AsksForTheShape(test_tail.Plain):
    def forward(self, x):
        return super().forward(x).view(x.shape[0], -1)


@pytest.mark.parametrize(("kind", "has_one"), [(test_tail.Plain, True), (AsksForTheShape, True), (ReadsTwice, False)])
def test_the_first_layer_is_what_alone_reads_the_input(kind, has_one):
    inputs = networks.photos(2, 16)
    _, backward = backward_for(kind(), inputs)
    assert (backward.first is not None) == has_one


# Rules for ReLUs


class Rectifying(nn.Module):
    """One ReLU module that runs three times, and one that writes in place; all modules, as captum needs them."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.three, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 5)
        self.norm, self.act, self.other = nn.BatchNorm2d(6), nn.ReLU(), nn.ReLU(inplace=True)
        generated.wake(self).eval()

    def forward(self, x):
        x = self.norm(self.one(x))
        x = self.other(x)
        x = self.other(self.two(x) + x)
        return self.head(self.other(self.three(x)).mean((2, 3)))


class Hidden(nn.Module):
    def forward(self, x):
        return torch.relu(x)


class Rewritten(Rectifying):
    """The same with every spelling of a ReLU, and one hidden in a module that nothing looks into."""

    def __init__(self):
        super().__init__()
        self.hidden = Hidden()

    def forward(self, x):
        x = F.relu(self.norm(self.one(x)), inplace=True)
        x = (self.two(x) + x).relu_()
        return self.head(self.hidden(self.three(x)).mean((2, 3)))


def reference(model, inputs, rule):
    """The rule by hooks on modules, slowly: the gradient of two scores by the input."""
    model = copy.deepcopy(model)
    for module in [module for module in model.modules() if isinstance(module, nn.ReLU)]:
        module.inplace = False

        def hook(_module, into, out):
            return (out[0].clamp(min=0) if rule == "deconvolution" else into[0].clamp(min=0),)

        module.register_full_backward_hook(hook)
    return by_autograd(model, inputs)[0]


@pytest.mark.parametrize("rule", ["guided", "deconvolution"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rules_in_every_spelling(rule, dtype):
    torch.manual_seed(0)
    model = Rectifying().to(dtype)
    inputs = networks.photos(4, 24).to(dtype)
    expected = reference(model.double(), inputs.double(), rule)
    rewritten = Rewritten()
    rewritten.load_state_dict(model.state_dict())
    for other in (model.to(dtype), rewritten.to(dtype).eval()):
        prepared, backward = backward_for(other, inputs, rule=rule)
        (actual,) = gradients_of(prepared, backward, inputs)
        assert max(errors(actual, expected)) <= (1e-10 if dtype is torch.float64 else 1e-4)
        assert backward.rectifiers == 3
        with rectified(rule) as mode:
            (by_mode,) = by_autograd(other, inputs)
        assert max(errors(by_mode, expected)) <= (1e-10 if dtype is torch.float64 else 1e-4)
        assert mode.met == 3


@pytest.mark.parametrize(("peer", "rule"), [("GuidedBackprop", "guided"), ("Deconvolution", "deconvolution")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rules_are_captums(peer, rule, dtype):
    attr = pytest.importorskip("captum.attr")
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, 5)),
    )
    model, inputs = generated.wake(model).eval().to(dtype), networks.photos(4, 24).to(dtype)
    with pytest.warns(UserWarning, match="hooks"):
        expected = getattr(attr, peer)(model).attribute(inputs.clone(), target=2)
    prepared, backward = backward_for(model, inputs, rule=rule)
    run = backward(prepared.empty(len(inputs), inputs).copy_(inputs))
    with torch.enable_grad():
        scores = run.raw[:, 2:3]
    (actual,) = run.gradients(scores)
    assert max(errors(actual[:, 0], expected.double())) <= (1e-10 if dtype is torch.float64 else 1e-5)


# What the model is left as, and when there is no backward


def test_the_model_is_left_as_it_was():
    model, inputs = copy.deepcopy(test_tail.narrow("resnet")).float(), networks.photos(2, 64)
    calls = []
    model.layer2[0].relu.register_forward_hook(lambda *_: calls.append("relu"))
    model.layer1.register_forward_hook(lambda *_: calls.append("layer1"))
    prepared, backward = backward_for(model, inputs)
    before = {
        name: (part.clone(), part.requires_grad) for name, part in prepared.module.state_dict(keep_vars=True).items()
    }
    calls.clear()
    (actual,) = gradients_of(prepared, backward, inputs)
    assert calls == ["layer1", "relu", "relu"]
    for name, part in prepared.module.state_dict(keep_vars=True).items():
        assert torch.equal(part, before[name][0])
        assert part.requires_grad == before[name][1]
        assert part.grad is None
    assert max(errors(actual, by_autograd(copy.deepcopy(model).double(), inputs.double())[0])) <= 0.3


def test_scores_that_do_not_depend_on_the_output_are_refused():
    prepared, backward, inputs = resnet()
    run, scores = run_of(prepared, backward, inputs)
    with pytest.raises(ValueError, match="`target` does not depend differentiably"):
        run.gradients(scores.detach())


class Detached(test_tail.Plain):
    def between(self, x):
        with torch.no_grad():
            return x * 2


class Slices(test_tail.Plain):
    def between(self, x):
        x[:, ::2].mul_(2)
        return x


@pytest.mark.parametrize(
    ("make", "dtype", "reason"),
    [
        (Detached, torch.float32, "without gradients"),
        (Slices, torch.float32, "writes in place"),
        (test_tail.Plain, torch.float64, "nothing is fused"),
    ],
)
def test_models_without_a_backward(make, dtype, reason):
    _, backward = backward_for(make().to(dtype), networks.photos(2, 16).to(dtype))
    assert isinstance(backward, str)
    assert reason in backward


def test_inputs_of_another_shape_have_none():
    prepared = made_ready(test_tail.Plain(), networks.photos(1, 16))
    assert "not captured for inputs of this shape" in backward_of(prepared, (3, 20, 20))


def test_a_layer_that_does_not_run_is_named():
    prepared = made_ready(test_tail.Plain(), networks.photos(1, 16))
    with pytest.raises(ValueError, match="does not run"):
        backward_of(prepared, (3, 16, 16), ("nowhere",))

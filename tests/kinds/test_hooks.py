"""Hooks that take part in a forward: activations handed on, tensors hooked, weights set, what libraries capture."""

from __future__ import annotations

import copy
import functools
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import xai_fast as xf
from xai_fast.core import autograd

INPUTS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Unet(nn.Module):
    """Adds, behind a layer, what a hook has kept of the one before; `kept` says where the forward reads it."""

    def __init__(self, kept):
        super().__init__()
        self.enter, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 4)
        self.kept = kept

    def forward(self, x):
        x = torch.relu(self.middle(torch.relu(self.enter(x))))
        return self.head(torch.cat([x, self.kept(self)], 1).mean((2, 3)))


class Keeper:
    out = None

    def keep(self, module, args, output):
        self.out = output

    def __call__(self, module, args, output):
        self.out = output


GLOBAL = {}


def _method_of_a_held_object(model, keeper):
    model.skip = keeper
    model.enter.register_forward_hook(keeper.keep)
    model.kept = lambda model: model.skip.out


def _held_object(model, keeper):
    model.skip = keeper
    model.enter.register_forward_hook(keeper)
    model.kept = lambda model: model.skip.out


def _attribute_of_the_layer(model, keeper):
    model.enter.register_forward_hook(lambda module, args, output: setattr(module, "out", output))
    model.kept = lambda model: model.enter.out


def _method_of_the_model(model, keeper):
    model.keep = functools.partial(lambda model, module, args, output: model.__dict__.update(out=output), model)
    model.enter.register_forward_hook(model.keep)
    model.kept = lambda model: model.out


def _closure_over_the_model(model, keeper):
    def hook(module, args, output):
        model.out = output

    model.enter.register_forward_hook(hook)
    model.kept = lambda model: model.out


def _weak_reference(model, keeper):
    there = weakref.ref(model)
    model.enter.register_forward_hook(lambda module, args, output: setattr(there(), "out", output))
    model.kept = lambda model: model.out


def _dictionary_of_the_model(model, keeper):
    model.store = store = {}
    model.enter.register_forward_hook(lambda module, args, output: store.update(skip=output))
    model.kept = lambda model: model.store["skip"]


def _closure_of_both(model, keeper):
    store = []
    model.enter.register_forward_hook(lambda module, args, output: store.append(output))
    model.kept = lambda model: store.pop()


def _name_of_the_module(model, keeper):
    model.enter.register_forward_hook(lambda module, args, output: GLOBAL.update(skip=output))
    model.kept = lambda model: GLOBAL["skip"]


def _object_outside_that_holds_the_model(model, keeper):
    keeper.model = model

    def keep(self, module, args, output):
        self.model.out = output

    model.enter.register_forward_hook(keep.__get__(keeper))
    model.kept = lambda model: model.out


def _pre_hook_with_keywords(model, keeper):
    model.skip = keeper
    model.middle.register_forward_pre_hook(
        lambda module, args, kwargs: setattr(model.skip, "out", args[0]), with_kwargs=True
    )
    model.kept = lambda model: model.skip.out


CARRIERS = [
    _method_of_a_held_object,
    _held_object,
    _attribute_of_the_layer,
    _method_of_the_model,
    _closure_over_the_model,
    _weak_reference,
    _dictionary_of_the_model,
    _closure_of_both,
    _name_of_the_module,
    _object_outside_that_holds_the_model,
    _pre_hook_with_keywords,
]


def truth(model, inputs, target=1):
    """Scores and gradients of the model itself in float64, row by row."""
    model.double()
    try:
        scores, gradients = [], []
        for row in inputs.double():
            leaf = row[None].requires_grad_()
            score = model(leaf)[0, target]
            scores.append(score.detach())
            gradients.append(torch.autograd.grad(score, leaf)[0])
    finally:
        model.float()
    return torch.stack(scores), torch.cat(gradients)


def drops(model, inputs, window, target=1):
    """Occlusion by windows that tile, in float64."""
    whole, _ = truth(model, inputs, target)
    found = torch.zeros(len(inputs), 1, *inputs.shape[2:], dtype=torch.float64)
    for top in range(0, inputs.shape[2], window):
        for left in range(0, inputs.shape[3], window):
            there = ..., slice(top, top + window), slice(left, left + window)
            hidden = inputs.clone()
            hidden[there] = 0
            found[there] = (whole - truth(model, hidden, target)[0]).view(-1, 1, 1, 1)
    return found


def near(actual, expected, bound=1e-5):
    error = (actual.double() - expected).abs().max()
    assert error <= bound * expected.abs().max(), f"off by {error / expected.abs().max():.1e}"


@pytest.mark.parametrize("called_before", [False, True], ids=["fresh", "called before"])
@pytest.mark.parametrize("carry", CARRIERS, ids=lambda carry: carry.__name__[1:])
def test_what_hooks_hand_on_is_of_the_row_at_hand(carry, called_before):
    model, keeper = Unet(None).eval(), Keeper()
    carry(model, keeper)
    other = INPUTS.flip(0)[:1] * 2
    if called_before:
        with torch.no_grad():
            model(other)
    kept = keeper.out
    engine = xf.Engine(model, batch_size=2)
    scores = engine.scores(INPUTS, 1)
    gradients = xf.Saliency(engine, absolute=False).attribute(INPUTS, target=1)
    hidden = xf.Occlusion(engine, window=8).attribute(INPUTS, target=1)
    cam = xf.GradCAM(engine, layer="middle").attribute(INPUTS, target=1)
    assert keeper.out is kept, "the copy has written into the user's object"
    expected = truth(model, INPUTS)
    near(scores, expected[0])
    near(gradients, expected[1])
    near(hidden[:, :1], drops(model, INPUTS, 8))
    alone = torch.cat([xf.GradCAM(model, layer="middle").attribute(row[None], target=1) for row in INPUTS])
    near(cam, alone.double())


def test_collections_of_the_users_get_the_rows_of_calls_and_no_others():
    """Whether a hook closes over a list, is a method of an object that holds the model, or counts in a global name."""
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    model, lists, counts = nn.Sequential(*layers).eval(), [], {"rows": 0}

    class Extractor:
        def __init__(self, model):
            self.model, self.found = model, []
            model[2].register_forward_hook(self.save)

        def save(self, module, args, output):
            self.found.append(len(output))

    extractor = Extractor(model)
    model[0].register_forward_hook(lambda module, args, output: lists.append(len(output)))

    def count(module, args):
        counts["rows"] += len(args[0])

    model[0].register_forward_pre_hook(count)
    method = xf.Saliency(xf.Engine(model, batch_size=1), absolute=False)
    for called in (1, 2):
        method.attribute(INPUTS, target=1)
        assert sum(lists) == sum(extractor.found) == counts["rows"] == 3 * called


def _negating(z):
    z.register_hook(lambda gradient: -gradient)


def _clipping(z):
    z.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))


def _of_the_node(z):
    if z.grad_fn is not None:
        z.grad_fn.register_prehook(lambda gradients: tuple(-g for g in gradients))


@pytest.mark.parametrize("hook", [_negating, _clipping, _of_the_node], ids=lambda hook: hook.__name__[1:])
@pytest.mark.parametrize("asked", [False, True], ids=["always", "where it needs a gradient"])
def test_hooks_on_tensors_inside_the_forward(hook, asked):
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def _observe(self, z):
            if not asked or z.requires_grad:
                hook(z)
            return z

        def forward(self, x):
            if not asked:
                x = x if x.requires_grad else x.detach().requires_grad_()
            with torch.enable_grad() if not asked else torch.autograd.profiler.record_function("as called"):
                z = self._observe(self.conv(x))
                return self.head(F.relu(z).mean((2, 3)))

    model = Hooked().eval()
    _, expected = truth(model, INPUTS)
    near(xf.Saliency(model, absolute=False).attribute(INPUTS, target=1), expected)


def _old_weight_norm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model.middle)


def _old_spectral_norm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.spectral_norm(model.middle)


def _pruned(model):
    prune.random_unstructured(model.middle, "weight", amount=0.5)


def _another_value(model):
    model.middle.register_forward_hook(lambda module, args, output: output.flip(-1) * 2)


def _another_argument(model):
    model.middle.register_forward_pre_hook(lambda module, args, kwargs: ((args[0] ** 2,), kwargs), with_kwargs=True)


def _always_called(model):
    model.middle.register_forward_hook(lambda module, args, output: output + 1, always_call=True)


def _another_gradient(model):
    model.middle.register_full_backward_hook(lambda module, given, _: tuple(g * 3 for g in given))


def _another_gradient_before(model):
    model.middle.register_full_backward_pre_hook(lambda module, given: tuple(g * 3 for g in given))


CHANGING = [
    *(_old_weight_norm, _old_spectral_norm, _pruned, _another_value, _another_argument, _always_called),
    *(_another_gradient, _another_gradient_before),
]


@pytest.mark.parametrize("change", CHANGING, ids=lambda change: change.__name__[1:])
def test_hooks_that_change_what_passes(change):
    model = nn.Sequential()
    for name, layer in (
        ("enter", nn.Conv2d(3, 8, 3, padding=1)),
        ("relu", nn.ReLU()),
        ("middle", nn.Conv2d(8, 8, 3, padding=1)),
        ("again", nn.ReLU()),
        ("pool", nn.AdaptiveAvgPool2d(2)),
        ("flat", nn.Flatten()),
        ("head", nn.Linear(32, 4)),
    ):
        model.add_module(name, layer)
    model.eval()
    change(model)
    expected = truth(model, INPUTS)
    near(xf.Engine(model).scores(INPUTS, 1), expected[0])
    near(xf.Saliency(model, absolute=False).attribute(INPUTS, target=1), expected[1])
    near(xf.Occlusion(model, window=8).attribute(INPUTS, target=1)[:, :1], drops(model, INPUTS, 8))
    if change is _pruned:
        prune.remove(model.middle, "weight")
        near(xf.Engine(model).scores(INPUTS, 1), truth(model, INPUTS)[0])


@pytest.mark.parametrize("when", ["before", "between"])
def test_hooks_on_all_modules(when):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    engine = xf.Engine(model)

    def check():
        expected = truth(copy.deepcopy(model), INPUTS)  # the model itself stays as it was prepared
        near(engine.scores(INPUTS, 1), expected[0])
        near(xf.Saliency(engine, absolute=False).attribute(INPUTS, target=1), expected[1])

    if when == "between":
        check()

    def hook(module, args, output):
        return output * -2 if isinstance(module, nn.ReLU) else None

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        check()
    finally:
        handle.remove()
    check()


def _segformer(t):
    config = t.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, num_labels=3,
    )  # fmt: skip
    return t.SegformerForSemanticSegmentation(config)


def _upernet(t):
    backbone = t.ConvNextConfig(
        num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage1", "stage2"]
    )  # fmt: skip
    config = t.UperNetConfig(
        backbone_config=backbone, hidden_size=8, pool_scales=[1, 2], use_auxiliary_head=False, num_labels=3
    )
    return t.UperNetForSemanticSegmentation(config)


def _dpt(t):
    config = t.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, num_labels=3,
    )  # fmt: skip
    return t.DPTForSemanticSegmentation(config)


@pytest.mark.parametrize("called_before", [False, True], ids=["fresh", "called before"])
@pytest.mark.parametrize("build", [_segformer, _upernet, _dpt], ids=lambda build: build.__name__[1:])
def test_models_that_capture_their_own_outputs(build, called_before):
    transformers = pytest.importorskip("transformers")
    model = build(transformers).eval()
    inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    class Mean(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x).logits.mean((2, 3))

    wrapped = Mean(model)
    if called_before:
        with torch.no_grad():
            wrapped(inputs[:1])
    scores = xf.Engine(wrapped).scores(inputs, 1)
    gradients = xf.Saliency(wrapped, absolute=False).attribute(inputs, target=1)
    hidden = xf.Occlusion(wrapped, window=16).attribute(inputs, target=1)
    expected = truth(copy.deepcopy(wrapped), inputs)
    near(scores, expected[0], 1e-4)
    near(gradients, expected[1], 1e-3)
    near(hidden[:, :1], drops(wrapped, inputs, 16), 1e-3)


def _chain():
    layers = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(720, 4)
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("returns", [None, 1.5], ids=["what it was given", "something else"])
def test_a_hook_on_the_tensor_that_a_layer_returns(returns):
    """The gradient at a layer is what the user's hooks on its output leave of it, as torch keeps it there."""
    torch.manual_seed(3)
    model, factors = _chain(), torch.linspace(0.2, 3, 5).view(-1, 1, 1)

    def hook(_module, _given, made):
        if made.requires_grad:
            made.register_hook(lambda gradient: gradient * factors)
        return None if returns is None else made * returns

    model[2].register_forward_hook(hook)
    seen = {}
    handle = model[2].register_forward_hook(lambda _module, _given, made: seen.update(out=made))
    scores = model(INPUTS)[:, 1]
    seen["out"].retain_grad()
    scores.sum().backward()
    handle.remove()
    by = seen["out"].grad
    truth = (by.mean((2, 3), keepdim=True) * seen["out"]).sum(1, keepdim=True).relu().detach()
    found = xf.GradCAM(model, layer="2").attribute(INPUTS, 1, resolution="native")
    assert truth.abs().max() > 1e-3
    near(found, truth)


def test_gradients_behind_hooks_on_tensors():
    """Of several tensors at once as of each alone, where torch gives what arrives at the hook."""
    x = torch.ones(2, requires_grad=True)

    def asked(*which):
        made = {"x": x, "y": x * 2}
        made["y"].register_hook(lambda gradient: gradient / 2)
        return autograd.grad((made["y"].clone() * 3).sum(), [made[name] for name in which])

    for which in (("y",), ("x", "y"), ("y", "x")):
        for name, gradient in zip(which, asked(*which), strict=True):
            assert gradient.tolist() == {"x": [3.0, 3.0], "y": [1.5, 1.5]}[name]

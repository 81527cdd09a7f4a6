"""Where a map is read: the layer that "auto" means, and the axes or tokens that are its positions, found by answers."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from forwards import Forward
from torch import Tensor, nn

import xai_fast as xf
from xai_fast.core.layers import Recorded, choose_layers, readings_of


class SelfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        weights = (self.query(x) @ self.key(x).transpose(1, 2) / x.shape[2] ** 0.5).softmax(-1)
        return weights @ self.value(x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches as tokens, with class and register tokens in front and detection tokens behind; read as is said."""

    def __init__(self, read, front=0, behind=0, axes=2, width=12, zero_head=False):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.read = read
        self.patches = conv(3, width, 4, stride=4)
        self.front = nn.Parameter(torch.randn(1, front, width))
        self.behind = nn.Parameter(torch.randn(1, behind, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        if zero_head:
            nn.init.zeros_(self.head.weight)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        few = [part.expand(x.shape[0], -1, -1) for part in (self.front, self.behind)]
        tokens = self.norm(self.blocks(torch.cat([few[0], tokens, few[1]], 1)))
        return self.head(self.read(tokens))


class ChannelsLast(nn.Module):
    """(N, h, w, C) as in Swin."""

    def __init__(self, width=8):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.mix(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


@dataclass
class Features:
    last: Tensor
    pooled: Tensor


class Backbone(nn.Module):
    """Returns a map that nobody reads, and what it pools to."""

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 7, 3, 2, 1), nn.Tanh())

    def forward(self, x):
        maps = self.stages(x)
        return Features(maps, maps.mean((2, 3)))


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 6, 3, 4, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.fine, self.coarse = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x):
        first = self.stem(x).relu()
        return OrderedDict(coarse=self.coarse(self.down(first)), fine=self.fine(first))


class Stage(nn.Module):
    """Halves its map at the end, and returns it as it was before, too."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.Tanh())
        self.halve = nn.Conv2d(6, 6, 3, 2, 1)

    def forward(self, x):
        before = self.block(x)
        return self.halve(before), before


class Ladder(Stage):
    """The same where both maps are read."""

    def forward(self, x):
        half, before = super().forward(x)
        return OrderedDict(half=half, before=before)


def pooled(*before, width=6):
    return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def tall():
    before = [nn.Conv2d(1, 16, (1, 9), padding=(0, 4)), nn.ReLU(), nn.MaxPool2d((1, 4))]
    return nn.Sequential(*before, nn.Flatten(), nn.Linear(16**3, 5))


def reused():
    def forward(self, x):
        return self.head(self.relu(self.b(self.relu(self.a(x)))).mean((2, 3)))

    return Forward(forward, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 6, 3), relu=nn.ReLU(), head=nn.Linear(6, 5))


def recurrent():
    def forward(self, x):
        x = self.step(x.tile(1, 2, 1, 1)[:, :4])
        return self.head(self.step(x).mean((2, 3)))

    return Forward(forward, step=nn.Conv2d(4, 4, 3, padding=1), head=nn.Linear(4, 5))


def anchors():
    head = nn.Sequential(nn.Conv2d(8, 84, 1), nn.Flatten(2))
    return Forward(lambda self, x: self.head(self.body(x)), body=nn.Conv2d(3, 8, 3, 8, 1), head=head)


def segmenter():
    def forward(self, x):
        z = self.body(x)
        up = nn.functional.interpolate
        return {"out": up(self.classifier(z), scale_factor=4.0), "aux": up(self.aux_head(z), scale_factor=4.0)}

    def head():
        return nn.Sequential(nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(), nn.Conv2d(7, 5, 1))

    return Forward(forward, body=nn.Conv2d(3, 6, 3, 4, 1), classifier=head(), aux_head=head())


def detector():
    def forward(self, x):
        maps = self.backbone(x).values()
        found = torch.cat([self.head(one).flatten(2) for one in maps], 2)
        return [{"scores": row.amax(1)} for row in found.sigmoid()]

    return Forward(forward, backbone=Pyramid(), head=nn.Conv2d(6, 5, 1))


class Residual(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 1)

    def forward(self, x):
        return (x + self.up(self.down(x).relu())).relu()


class Everywhere(nn.Module):
    """Convolves, and then says at every place what all of them say together."""

    def __init__(self, width):
        super().__init__()
        self.expand, self.shrink = nn.Conv2d(width, 9, 3, padding=1), nn.Linear(9, width)

    def forward(self, x):
        mean = self.shrink(self.expand(x).tanh().mean((2, 3)))
        return mean[:, :, None, None].expand_as(x) * 1.5


def headless():
    blocks = nn.Sequential(Residual(6, 4), Residual(6, 4))
    return nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def silent_block():
    stages = nn.Sequential(Residual(6, 20), Everywhere(6))
    return pooled(nn.Conv2d(3, 6, 3, 4, 1), stages, nn.ReLU())


def coarse_branches():
    """Four cells, each of which sees everything, whose channels come from two convolutions."""

    def forward(self, x):
        x = self.join(self.stem(x))
        return self.head(x.tanh().mean((2, 3)))

    def branches(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)

    join = Forward(branches, a=nn.Conv2d(4, 30, 3, padding=1), b=nn.Conv2d(4, 20, 3, padding=1))
    return Forward(forward, stem=nn.Conv2d(3, 4, 31, 16, 15), join=join, head=nn.Linear(50, 5))


class CoarseLast(nn.Module):
    """Four cells, each of which sees everything, with channels last."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 4, 16, 16), nn.Linear(4 * 4, 4 * 40)
        self.norm, self.head = nn.LayerNorm(40), nn.Linear(40, 5)

    def forward(self, x):
        return self.head(self.norm(self.mix(self.stem(x).flatten(1)).view(-1, 2, 2, 40)).tanh().mean((1, 2)))


def volume_tokens():
    return Transformer(lambda t: t[:, 0], front=1, axes=3)


def last_axis(a):
    return a.movedim(-1, 1)


def tokens(first, *shape):
    count = torch.Size(shape).numel()
    return lambda a: a[:, first : first + count].transpose(1, 2).unflatten(2, shape)


def as_it_is(a):
    return a


def first_class(o):
    return o[:, 1]


IMAGE, WIDE = (3, 32, 32), (3, 16, 40)
# What is built, the input's shape, the layers that "auto" means, how they are read, and the score.
NETS = {
    "a cube, channels first": (tall, (1, 16, 64), ["2"], as_it_is, first_class),
    "a cube, channels last": (ChannelsLast, IMAGE, ["mix"], last_axis, first_class),
    "channels last, wide": (ChannelsLast, WIDE, ["mix"], last_axis, first_class),
    "tokens, averaged": (lambda: Transformer(lambda t: t.mean(1)), IMAGE, ["norm"], tokens(0, 8, 8), first_class),
    "a class token": (
        lambda: Transformer(lambda t: t[:, 0], 1), IMAGE, ["blocks.1.norm1"], tokens(1, 8, 8), first_class,
    ),
    "a wide image's tokens": (
        lambda: Transformer(lambda t: t[:, 0], 1), WIDE, ["blocks.1.norm1"], tokens(1, 4, 10), first_class,
    ),
    "register tokens": (
        lambda: Transformer(lambda t: t[:, 0], 5), WIDE, ["blocks.1.norm1"], tokens(5, 4, 10), first_class,
    ),
    "detection tokens behind": (
        lambda: Transformer(lambda t: t[:, -9:].amax(1), 1, 9), WIDE, ["blocks.1.norm1"], tokens(1, 4, 10), first_class,
    ),
    "a head of zeros": (
        lambda: Transformer(lambda t: t[:, 0], 1, zero_head=True), IMAGE, ["blocks.1.norm1"], tokens(1, 8, 8),
        first_class,
    ),
    "tokens of a signal": (
        lambda: Transformer(lambda t: t[:, 0], 1, axes=1), (3, 64), ["blocks.1.norm1"], tokens(1, 16), first_class,
    ),
    "tokens of a volume": (volume_tokens, (3, 8, 12, 16), ["blocks.1.norm1"], tokens(1, 2, 3, 4), first_class),
    "an activation that runs twice": (reused, IMAGE, ["b"], as_it_is, first_class),
    "all that there is runs twice": (recurrent, IMAGE, ["step:2"], as_it_is, first_class),
    "a head over anchors": (anchors, IMAGE, ["body"], as_it_is, lambda o: o.amax((1, 2))),
    "maps of class scores": (segmenter, IMAGE, ["classifier.1"], as_it_is, lambda o: o["out"][:, 1].mean((1, 2))),
    "an auxiliary head": (segmenter, IMAGE, ["aux_head.1"], as_it_is, lambda o: o["aux"][:, 1].mean((1, 2))),
    "class scores before pooling": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1),
                              nn.Flatten()),
        IMAGE, ["1"], as_it_is, first_class,
    ),
    "features in place of class scores": (headless, IMAGE, ["1"], as_it_is, first_class),
    "inside a block that says the same everywhere": (silent_block, IMAGE, ["1.0"], as_it_is, first_class),
    "four cells of two branches": (coarse_branches, IMAGE, ["join"], as_it_is, first_class),
    "four cells, channels last": (CoarseLast, IMAGE, ["norm"], last_axis, first_class),
    "a map that feeds nothing": (
        lambda: Forward(lambda self, x: self.head(self.backbone(x).pooled), backbone=Backbone(), head=nn.Linear(7, 5)),
        IMAGE, ["backbone.stages"], as_it_is, first_class,
    ),
    "a stage that returns what it was, too": (
        lambda: Forward(
            lambda self, x: self.head(self.stage(x)[0].mean((2, 3))), stage=Stage(), head=nn.Linear(6, 5)
        ),
        IMAGE, ["stage"], as_it_is, first_class,
    ),
    "two maps, one of which is made of the other": (
        lambda: Forward(
            lambda self, x: self.head(sum(one.mean((2, 3)) for one in self.stage(x).values())),
            stage=Ladder(), head=nn.Linear(6, 5),
        ),
        IMAGE, ["stage.halve", "stage.block"], as_it_is, first_class,
    ),
    "a pyramid": (
        detector, IMAGE, ["backbone.coarse", "backbone.fine"], as_it_is,
        lambda o: torch.stack([row["scores"].sum() for row in o]),
    ),
    "a map of four cells": (
        lambda: pooled(nn.Conv2d(3, 6, 7, 4, 3), nn.ReLU(), nn.Conv2d(6, 6, 7, 4, 3)), IMAGE, ["2"], as_it_is,
        first_class,
    ),
}  # fmt: skip


def built(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def inputs_of(shape, seed=1):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


def plain_gradcam(model, layers, read, score, inputs):
    """Grad-CAM in float64 by hooks of plain PyTorch, each layer on its own grid."""
    model, found = copy.deepcopy(model).double(), {}

    def keep(name, call):
        def hook(_module, _args, output):
            found.setdefault(name, []).append(output[0] if isinstance(output, tuple) else output)
            if len(found[name]) == call:
                found[name][-1].retain_grad()

        return hook

    calls = [(*layer.split(":"), "1")[:2] for layer in layers]
    for name, call in calls:
        model.get_submodule(name).register_forward_hook(keep(name, int(call)))
    x = inputs.double().requires_grad_()
    score(model(x)).sum().backward()
    maps = []
    for name, call in calls:
        activation = found[name][int(call) - 1]
        grid, gradient = read(activation.detach()), read(activation.grad)
        weights = gradient.flatten(2).mean(2)
        maps.append(torch.einsum("nk,nk...->n...", weights, grid).relu()[:, None])
    return maps


@pytest.mark.parametrize("name", NETS)
def test_the_layer_that_is_chosen_and_how_it_is_read(name):
    make, shape, layers, read, score = NETS[name]
    model, inputs = built(make), inputs_of(shape)
    found = xf.GradCAM(model)(inputs, target=score, resolution="native")
    assert list(found.layer) == layers
    maps = plain_gradcam(model, layers, read, score, inputs)
    if len(maps) == 1:
        assert found.values.shape == maps[0].shape
        assert torch.allclose(found.values.double(), maps[0], rtol=1e-3, atol=1e-5 * maps[0].abs().max().item())
    for one, layer in zip(maps, layers, strict=True):  # a layer that is named is read in the same way
        named = xf.GradCAM(model, layer=layer).attribute(inputs, score, resolution="native").double()
        assert named.shape == one.shape
        assert torch.allclose(named, one, rtol=1e-3, atol=1e-5 * one.abs().max().item())


def near(ours, truth):
    assert ours.shape == truth.shape
    assert torch.allclose(ours.double(), truth, rtol=1e-3, atol=1e-5 * truth.abs().max().item())


class Decoded(nn.Module):
    """Convolves a map that is made of a vector: its places are none of the input's."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh())
        self.vector, self.decoder = nn.Linear(6, 4 * 36), nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        vector = self.vector(self.encoder(x).mean((2, 3)))
        return self.head(self.decoder(vector.view(-1, 4, 6, 6)).mean((2, 3)))


class Turned(nn.Module):
    """Goes on with rows and columns exchanged."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh().transpose(2, 3)).tanh().mean((2, 3)))


CORNERS = {
    "maps": (pooled(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU()), "3", 2),
    "channels last": (ChannelsLast(), "mix", 2),
    "tokens": (Transformer(lambda tokens: tokens.mean(1)), "norm", 2),
    "a map made of a vector": (Decoded(), "encoder", None),
    "rows and columns exchanged": (Turned(), "first", None),
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("name", CORNERS)
def test_corners_tell_what_is_plain_and_nothing_else(name, told, monkeypatch):
    """Where the operators behind a map do not tell how it lies; where they do, nothing more is run."""
    net, layer, forwards = CORNERS[name]
    if not told:
        monkeypatch.setattr(Recorded, "reading", lambda _record, _one: None)
    forwards = 1 if told and forwards else forwards
    torch.manual_seed(3)
    for weight in net.parameters():
        if weight.ndim > 1 and weight.numel():
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    asked = []
    watched = copy.deepcopy(net).eval().requires_grad_(False)
    watched.register_forward_pre_hook(lambda _module, args: asked.append(len(args[0])))
    choice = choose_layers(watched, torch.randn(1, 3, 32, 32), lambda raw: raw, ours=True)
    assert choice.layers == (layer,)
    if forwards is not None:
        assert asked == [1] * forwards
        asked.clear()
        assert readings_of(watched, choice.layers, torch.randn(1, 3, 32, 32))[0] == {layer: choice.readings[0]}
        assert asked == [1] * forwards


def test_a_long_way_back_to_what_answers_takes_few_forwards():
    """48 blocks that say the same everywhere: candidates are looked at by six, twelve, and so on."""
    torch.manual_seed(3)
    net = pooled(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), *(Everywhere(6) for _ in range(48))).eval().requires_grad_(False)
    asked = []
    net.register_forward_pre_hook(lambda _module, args: asked.append(len(args[0])))
    assert choose_layers(net, torch.randn(1, 3, 32, 32), lambda raw: raw, ours=True).layers == ("1",)
    assert len(asked) < 140


@pytest.mark.parametrize("layer", ["relu:1", "relu:2", "b:input"])
def test_a_call_and_what_goes_in_have_names(layer):
    model, inputs = built(reused), inputs_of(IMAGE)
    alike = "relu:1" if layer == "b:input" else layer  # the same tensor
    (truth,) = plain_gradcam(model, [alike], as_it_is, first_class, inputs)
    near(xf.GradCAM(model, layer=layer).attribute(inputs, 1, resolution="native"), truth)
    with pytest.raises(ValueError, match=r"`layer` 'relu' runs more than once.*'relu:2'"):
        xf.GradCAM(model, layer="relu").attribute(inputs, 1)
    with pytest.raises(ValueError, match="`layer` 'relu:3' is a call that does not run: 'relu' runs 2 times"):
        xf.GradCAM(model, layer="relu:3").attribute(inputs, 1)


METHODS = {
    "GradCAM": xf.GradCAM, "AblationCAM": xf.AblationCAM, "ReciproCAM": xf.ReciproCAM,
    "GuidedGradCAM": xf.GuidedGradCAM, "FilterActivation": xf.FilterActivation,
    "ErrorAttribution": lambda model, **settings: xf.ErrorAttribution(model, kind="activation", **settings),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:no ReLU ran")
@pytest.mark.parametrize("method", METHODS)
def test_what_the_caller_says_of_the_grid(method):
    make, shape, (layer,), read, _ = NETS["register tokens"]
    model, inputs = built(make), inputs_of(shape)
    target = {} if method == "FilterActivation" else {"target": 1}
    found, extents, function = (
        METHODS[method](model, layer=layer, grid=grid).attribute(inputs, resolution="native", **target)
        for grid in (None, (4, 10), read)
    )
    near(extents, found.double())
    near(function, found.double())
    with pytest.raises(ValueError, match=r"`grid` \(5, 11\) is not to be found in \(2, 45, 12\)"):
        METHODS[method](model, layer=layer, grid=(5, 11)).attribute(inputs, **target)


class Mixed(nn.Module):
    """Patches behind registers, without attention, which some rules do not know."""

    def __init__(self):
        super().__init__()
        self.patches, self.registers = nn.Conv2d(3, 12, 4, stride=4), nn.Parameter(torch.randn(1, 5, 12))
        self.mix, self.act, self.head = nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.registers.expand(x.shape[0], -1, -1), tokens], 1)
        return self.head(self.act(self.mix(tokens)).mean(1))


GRADIENTS = {
    "Saliency": xf.Saliency,
    "Saliency, channels folded": partial(xf.Saliency, channels="sum"),
    "InputXGradient": xf.InputXGradient,
    "IntegratedGradients": partial(xf.IntegratedGradients, n_steps=3),
    "GradientShap": partial(xf.GradientShap, n_samples=2),
    "DeepLift": xf.DeepLift,
    "DeepLiftShap": partial(xf.DeepLiftShap, baselines=torch.zeros(2, *WIDE)),
    "GuidedBackprop": xf.GuidedBackprop,
    "Deconvolution": xf.Deconvolution,
    "SmoothGrad": lambda model, **settings: xf.SmoothGrad(xf.InputXGradient(model, **settings), n_samples=2),
}


@pytest.mark.filterwarnings("ignore:no ReLU ran")
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_at_a_layer_are_read_on_the_grid_that_the_caller_gives(name):
    read, layer = tokens(5, 4, 10), "mix"
    model, inputs, target = built(Mixed), inputs_of(WIDE), torch.tensor([[1, 3], [0, 2]])
    whole = GRADIENTS[name](model, layer=layer)(inputs, target)
    for grid in ((4, 10), read):
        found = GRADIENTS[name](model, layer=layer, grid=grid)(inputs, target)
        near(found.values, read(whole.values.flatten(0, 1)).unflatten(0, (2, 2)).double())
        if whole.completeness_gap is not None:  # of the whole layer, whatever the grid leaves out
            torch.testing.assert_close(found.completeness_gap, whole.completeness_gap)
    with pytest.raises(ValueError, match=r"`grid` \(5, 11\) is not to be found in \(2, 45, 12\)"):
        GRADIENTS[name](model, layer=layer, grid=(5, 11)).attribute(inputs, target)
    with pytest.raises(ValueError, match="`grid` says how a layer is read, and `layer` is None"):
        GRADIENTS[name](model, grid=(4, 10))


def test_snapshots_lie_on_the_grid_as_the_map_does():
    model, inputs = built(Mixed), inputs_of(WIDE)
    wrapped = xf.SmoothGrad(xf.Saliency(model, layer="mix", grid=(4, 10)), n_samples=3, snapshots=(3,))
    found = wrapped(inputs, 1)
    assert found.values.shape == (2, 12, 4, 10)
    torch.testing.assert_close(found.snapshots[3].view_as(found.values), found.values)


def test_what_is_no_grid_is_refused_in_words():
    model, inputs = built(anchors), inputs_of(IMAGE)
    with pytest.raises(ValueError, match=r"`layer` gives \(2, 84, 16\), which is no grid.*`grid=\(h, w\)`"):
        xf.GradCAM(model, layer="head").attribute(inputs, lambda o: o.amax((1, 2)))
    named = xf.GradCAM(model, layer="head", grid=lambda a: a.unflatten(2, (4, 4)))
    (truth,) = plain_gradcam(
        model, ["head"], lambda a: a.unflatten(2, (4, 4)), lambda o: o.square().mean((1, 2)), inputs
    )
    near(named.attribute(inputs, lambda o: o.square().mean((1, 2)), resolution="native"), truth)
    with pytest.raises(TypeError, match="`grid` came as 4"):
        xf.GradCAM(model, grid=4)
    with pytest.raises(ValueError, match="`grid` made"):
        xf.GradCAM(model, layer="head", grid=lambda a: a).attribute(inputs, lambda o: o.amax((1, 2)))
    with pytest.raises(ValueError, match='`layer` "auto" found no layer'):
        xf.GradCAM(nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))).attribute(inputs, 1)


def test_channels_are_folded_where_the_layer_has_them():
    """Channels last: folding axis 1 would fold rows of the picture."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.mix, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.mix(self.first(x).permute(0, 2, 3, 1)).relu().mean((1, 2)))

    model, inputs = Last().eval(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = xf.Saliency(model, layer="mix").attribute(inputs, target=1)
    assert whole.shape == (2, 8, 8, 8)
    folded = xf.Saliency(model, layer="mix", channels="sum").attribute(inputs, target=1)
    torch.testing.assert_close(folded, whole.sum(3, keepdim=True))

"""How maps lie over the input, told from the operators that made them: right wherever it is told, and else not told."""

from functools import partial
from operator import attrgetter

import numpy as np
import pytest
import torch
from forwards import Forward
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast.core.layers import Axes, Recorded, Tokens, coordinates, reading_of


class Flipped(torch.autograd.Function):
    """A function of the user's own, whose operator nobody knows."""

    @staticmethod
    def forward(_context, x):
        return x.flip(-1)

    @staticmethod
    def backward(_context, gradient):
        return gradient.flip(-1)


def stem(width=8):
    return nn.Conv2d(3, width, 3, 2, 1)


def changed(change, **parts):
    """A convolution, a change of its map, and a module that shows what it became."""
    return Forward(lambda self, x: self.shown(change(self, self.stem(x).tanh())), stem=stem(), shown=nn.Tanh(), **parts)


def patched(change, **parts):
    """Patches as tokens (N, 64, 8) of a grid 8 x 8, and what becomes of them."""

    def forward(self, x):
        return self.shown(change(self, self.patches(x).flatten(2).transpose(1, 2)))

    return Forward(forward, patches=nn.Conv2d(3, 8, 4, 4), shown=nn.LayerNorm(8), **parts)


def written(x):
    """Written into in place, a part of it."""
    x = x.clone()
    x[:, :, :, :2] = x[:, :, :, -2:]
    return x


def with_class(self, x):
    return torch.cat(
        [self.cls.weight[None].expand(len(x), -1, -1), x, self.more.weight[None].expand(len(x), -1, -1)], 1
    )


def attended(self, x):
    query, key, value = self.qkv(x).view(1, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return x + mixed.transpose(1, 2).reshape(x.shape)


def attended_by_products(self, x):
    query, key, value = self.qkv(x).chunk(3, -1)
    return x + (query @ key.transpose(1, 2) / 3).softmax(-1) @ value


def gated(self, x):
    return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid() + x.mean((2, 3), keepdim=True)


CLASSES = {"cls": nn.Embedding(1, 8), "more": nn.Embedding(2, 8)}
TOLD = {
    "a convolution": (partial(changed, lambda _, x: x), Axes(1)),
    "pooled": (partial(changed, lambda _, x: functional.max_pool2d(functional.avg_pool2d(x, 3, 1, 1), 2)), Axes(1)),
    "gated": (partial(changed, gated, gate=nn.Conv2d(8, 8, 1)), Axes(1)),
    "joined": (partial(changed, lambda _, x: torch.cat([x, x.relu()], 1)), Axes(1)),
    "grown": (partial(changed, lambda _, x: functional.interpolate(x, scale_factor=2, mode="bilinear")), Axes(1)),
    "channels last": (partial(changed, lambda _, x: functional.layer_norm(x.permute(0, 2, 3, 1), (8,))), Axes(3)),
    "channels last, and back": (
        partial(changed, lambda self, x: x + self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), mix=nn.Linear(8, 8)),
        Axes(1),
    ),
    "tokens": (partial(patched, lambda _, x: x), Tokens(0, (8, 8))),
    "tokens among others": (partial(patched, with_class, **CLASSES), Tokens(1, (8, 8))),
    "others taken away": (partial(patched, lambda self, x: with_class(self, x)[:, 1:], **CLASSES), Tokens(0, (8, 8))),
    "attention": (partial(patched, attended, qkv=nn.Linear(8, 24)), Tokens(0, (8, 8))),
    "attention by products": (partial(patched, attended_by_products, qkv=nn.Linear(8, 24)), Tokens(0, (8, 8))),
    "a map again": (partial(patched, lambda _, x: x.transpose(1, 2).reshape(1, 8, 8, 8).permute(0, 2, 3, 1)), Axes(3)),
}
NOT_TOLD = {
    "flipped": partial(changed, lambda _, x: x.flip(3)),
    "rolled": partial(changed, lambda _, x: x.roll(4, 3)),
    "rows and columns exchanged": partial(changed, lambda _, x: x.transpose(2, 3)),
    "exchanged where they are added": partial(changed, lambda _, x: x + x.transpose(2, 3)),
    "parted in windows": partial(changed, lambda _, x: x.view(1, 8, 2, 8, 16).transpose(2, 3).reshape(1, 8, 16, 16)),
    "channels made places": partial(changed, lambda _, x: functional.pixel_shuffle(x, 2)),
    "every second row": partial(changed, lambda _, x: x[:, :, ::2]),
    "a part": partial(changed, lambda _, x: x[:, :, 4:]),
    "padded by far": partial(changed, lambda _, x: functional.pad(x, (0, 16, 0, 0))),
    "a convolution that moves": partial(changed, lambda self, x: self.far(x), far=nn.Conv2d(8, 8, 1, padding=8)),
    "picked": partial(changed, lambda _, x: x[:, :, torch.arange(15, -1, -1)]),
    "written into": partial(changed, lambda _, x: written(x)),
    "a function of the user's own": partial(changed, lambda _, x: Flipped.apply(x)),
    "made of a vector": partial(
        changed, lambda self, x: self.made(x.mean((2, 3))).view(1, 8, 6, 6), made=nn.Linear(8, 8 * 36)
    ),
    "places mixed": partial(changed, lambda self, x: self.mix(x), mix=nn.Linear(16, 16)),
    "columns first": partial(changed, lambda _, x: x.transpose(2, 3).flatten(2).transpose(1, 2)),
    "joined end to end": partial(changed, lambda _, x: torch.cat([x, x], 3)),
    "tokens rolled": partial(patched, lambda _, x: x.roll(3, 1)),
    "tokens sorted": partial(patched, lambda _, x: x.sort(1).values),
    "tokens joined twice": partial(patched, lambda _, x: torch.cat([x, x], 1)),
    "numbers in other rows": partial(changed, lambda _, x: x.reshape(1, 16, 8, 16)),
    "tokens in other rows": partial(patched, lambda _, x: x.reshape(1, 8, 64).reshape(1, 64, 8)),
    "axes without elements": partial(changed, lambda _, x: x[:, :0].reshape(1, 0, 256)),
    "some tokens": partial(patched, lambda _, x: x[:, 3:]),
    "a grid of other extents": partial(patched, lambda _, x: x.view(1, 4, 16, 8)),
}


def by_numpy(memory):
    memory[...] = memory[..., ::-1].copy()


def without_gradients(x):
    with torch.no_grad():
        return x.flip(-1)


def inferred(x):
    with torch.inference_mode():
        other = x.flip(-1)
    return x * 0 + other.clone()


def exchanged_without_gradients(x):
    with torch.no_grad():
        x.set_(x.flip(-1))


def emptied(x):
    other = x.flip(-1)
    x.data.resize_(0)
    x.data.set_(other.data)


def exchanged_view(x):
    view = x.view(1, 8, 256)
    view.data = x.flip(-1).reshape(1, 8, 256)
    return view.view(1, 8, 16, 16)


PAST_AUTOGRAD = {
    "data exchanged": lambda x: setattr(x, "data", x.data.flip(-1)),
    "data exchanged for what was recorded": lambda x: setattr(x, "data", x.flip(-1)),
    "data of a view exchanged": exchanged_view,
    "data written into": lambda x: x.data.copy_(x.flip(-1)),
    "data written into, by another name": lambda x: attrgetter("data")(x).copy_(x.flip(-1)),
    "data set": lambda x: x.data.set_(x.flip(-1)),
    "set without gradients": exchanged_without_gradients,
    "resized and set": emptied,
    "NumPy": lambda x: by_numpy(x.detach().numpy()),
    "NumPy, of data": lambda x: by_numpy(np.asarray(x.data)),
    "NumPy and back": lambda x: setattr(x, "data", torch.from_numpy(x.detach().numpy()[..., ::-1].copy())),
    "DLPack": lambda x: torch.from_dlpack(x.detach()).copy_(x.flip(-1)),
    "its storage": lambda x: x.untyped_storage().copy_(x.flip(-1).untyped_storage()) and None,
    "a tensor in its storage": lambda x: torch.empty(0).set_(x.untyped_storage(), 0, x.shape).copy_(x.flip(-1)),
    "straight through": lambda x: x + (x.flip(-1) - x).detach(),
    "without gradients": lambda x: x * 0 + without_gradients(x),
    "inference": inferred,
    "compared": lambda x: x * 0 + (x > 0).float().flip(-1),
    "numbers of places": lambda x: x * 0 + x.argsort(-1).float(),
}
HIDDEN = {"data exchanged", "data exchanged for what was recorded", "NumPy", "NumPy, of data", "NumPy and back"}
# What autograd sees, and looks like that.
SEEN = {
    "in place": lambda _, x: functional.hardswish(x, inplace=True).div_(3).relu_(),
    "means that are kept": lambda _, x: functional.group_norm(x, 2),
    "zeros like it": lambda _, x: x + x.new_zeros(x.shape) + torch.zeros_like(x),
    "kept for the backward": lambda _, x: x.exp().sigmoid().softmax(1),
    "memory used again": lambda _, x: [x * 2, x * 3][0] + torch.tensor([[1.0] * 16] * 16),
    "a weight's data": lambda self, x: x * self.stem.weight.data.mean() + self.stem.weight.detach().mean(),
}


def record_of(net, x):
    return Recorded(net.eval(), x, None)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", TOLD)
def test_told_as_positions_answer(name, frozen):
    make, expected = TOLD[name]
    torch.manual_seed(0)
    net, x = make().requires_grad_(not frozen), torch.randn(1, 3, 32, 32)
    record = record_of(net, x)
    (shown,) = [one for one in record.seen if one.name == "shown"]
    # Of tokens without a gradient on both sides of the grid autograd does not say how many there are.
    assert record.reading(shown) == (None if frozen and "cls" in dict(net.named_children()) else expected)
    assert reading_of(coordinates(net, ["shown"], x)["shown"]) == expected


@pytest.mark.parametrize("name", NOT_TOLD)
def test_not_told(name):
    torch.manual_seed(0)
    record = record_of(NOT_TOLD[name](), torch.randn(1, 3, 32, 32))
    (shown,) = [one for one in record.seen if one.name == "shown"]
    assert record.reading(shown) is None


@pytest.mark.parametrize("behind", ["a convolution", "what keeps its result"])
@pytest.mark.parametrize("name", PAST_AUTOGRAD)
def test_not_told_where_values_went_past_autograd(name, behind):
    torch.manual_seed(0)
    write, x = PAST_AUTOGRAD[name], torch.randn(1, 3, 32, 32)

    def forward(self, x):
        x = self.stem(x)
        x = x if behind == "a convolution" else x.tanh()
        new = write(x)
        return self.shown(x if new is None or new.requires_grad is False else new)

    record = record_of(Forward(forward, stem=stem(), shown=nn.Tanh()), x)
    (shown,) = [one for one in record.seen if one.name == "shown"]
    assert record.reading(shown) is None
    if name in HIDDEN:  # the hooks see no such write
        assert record.answers(x, ["stem"]) is None


@pytest.mark.parametrize("name", SEEN)
def test_told_where_it_only_looks_like_that(name):
    torch.manual_seed(0)
    record = record_of(changed(SEEN[name]), torch.randn(1, 3, 32, 32))
    (shown,) = [one for one in record.seen if one.name == "shown"]
    assert record.reading(shown) == Axes(1)


TURNED = {
    "by autograd's operators": lambda x: x.flip(3),
    "rolled": lambda x: x.roll(x.shape[3] // 4, 3),
    "rows and columns exchanged": lambda x: x.transpose(2, 3),
    "by data": lambda x: PAST_AUTOGRAD["data exchanged"](x),
    "by NumPy": lambda x: PAST_AUTOGRAD["NumPy"](x),
}


def turning(name, size):
    """A network whose last map lies elsewhere than the one before; that is as coarse as can be for a small input."""
    torch.manual_seed(0)

    def forward(self, x):
        x = self.stem(x)
        turned = TURNED[name](x)
        return self.shown(x if turned is None else turned).mean((2, 3))

    return Forward(forward, stem=stem(), shown=nn.Tanh()).eval(), torch.randn(1, 3, size, size)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("name", TURNED)
def test_a_turned_map_is_refused_unless_the_caller_says_how_it_lies(name, size):
    net, x = turning(name, size)
    with pytest.raises(ValueError, match="which is no grid over an input"):
        xf.GradCAM(net, layer="shown").attribute(x, 0)
    assert xf.GradCAM(net, layer="shown", grid=(size // 2, size // 2)).attribute(x, 0).count_nonzero()


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("name", ["by autograd's operators", "rows and columns exchanged", "by data", "by NumPy"])
def test_auto_means_the_layer_before_a_map_is_turned(name, size):
    net, x = turning(name, size)
    assert xf.GradCAM(net)(x, 0).layer == ("stem",)

"""Random small networks that write the same things in all the ways people write them, for tests of partial execution.

`networks()` is a hypothesis strategy; `network(seed)` is the same drawing without hypothesis, for a script or a bug
report; `unet` and `dilated` are two whole architectures with drawn details. All take (N, 3, H, W) with H and W between
12 and 20 (`net.size`), are in eval mode, float32 and awake: unit-scale weights, biases and statistics that are not
zero, class scores of scale one (`inputs(net)` makes what they were tuned on).

A network is a stem, a few blocks and a head. A block is one class below: (N, C, H, W) in, 4-d out, its `forward`
written out by hand, its choices made by `choose(*options)` and shown by its repr. A block offers itself for an example
activation or declines by raising `Unfit`, so that sizes never have to be worked out in two places. Whatever cannot be
differentiated (an in-place write over what a backward needs) is drawn again. Tracers may take a leaf module of a user's
for a black box, so two thirds of the blocks without layers get an unused child `through`, and are looked into.

To add a block: a class with `__init__(self, choose, x)` and `forward`, and its name in `BLOCKS`; in `KEEPING` too if it
returns the shape that it got, which branches of a join need. It is long because it is a catalogue.
"""

from __future__ import annotations

import random
from typing import ClassVar

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

CLASSES = 5


class Unfit(Exception):
    """A block does not go with this activation."""


def need(condition):
    if not condition:
        raise Unfit


class Block(nn.Module):
    """A piece of a network; `chosen` is what its repr shows.

    Args:
        choose: picks one of its arguments.
        x: an example of what will come, (N, C, H, W).
    """

    chosen = ""

    def extra_repr(self):
        return str(self.chosen)


# One activation in all its spellings. Those that end in _ write into their argument.

ACTIVATIONS = {
    "F.relu": lambda x: F.relu(x),
    "x.relu": lambda x: x.relu(),
    "torch.relu": lambda x: torch.relu(x),
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "x * sigmoid": lambda x: x * torch.sigmoid(x),
    "tanh": lambda x: x.tanh(),
    "softplus": lambda x: F.softplus(x) - 0.5,
    "relu_": lambda x: x.relu_(),
    "F.relu_": lambda x: F.relu(x, inplace=True),
    "clamp_": lambda x: x.clamp_(-1, 2),
    "F.leaky_relu_": lambda x: F.leaky_relu(x, 0.1, inplace=True),
    "F.silu_": lambda x: F.silu(x, inplace=True),
}
ACTIVATION_MODULES = {
    "ReLU": lambda: nn.ReLU(),
    "ReLU_": lambda: nn.ReLU(inplace=True),
    "SiLU": lambda: nn.SiLU(),
    "GELU": lambda: nn.GELU(),
    "Hardswish_": lambda: nn.Hardswish(inplace=True),
    "PReLU": lambda: nn.PReLU(),
    "ELU": lambda: nn.ELU(),
    "ReLU6_": lambda: nn.ReLU6(inplace=True),
}


class Activation(Block):
    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose(*ACTIVATIONS, *ACTIVATION_MODULES)
        self.module = ACTIVATION_MODULES[self.chosen]() if self.chosen in ACTIVATION_MODULES else None

    def forward(self, x):
        return ACTIVATIONS[self.chosen](x) if self.module is None else self.module(x)


class Arithmetic(Block):
    """Numbers, and tensors made on the spot."""

    KINDS: ClassVar = {
        "affine": lambda x: (x - 0.5) * 2 + 0.25,
        "from one": lambda x: 1 - x,
        "in place": lambda x: (x * 1.5).add_(0.3).mul_(0.8),
        "augmented": lambda x: _augmented(x),
        "square": lambda x: x**2 / 2 - x,
        "divide": lambda x: x / (1 + x.abs()),
        "ones_like": lambda x: x + 0.5 * torch.ones_like(x),
        "new_zeros": lambda x: x - x.new_full((x.shape[0], 1, x.shape[2], x.shape[3]), 0.3),
        "ramp": lambda x: x + torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device),
        "arange": lambda x: x * (0.5 + torch.arange(x.size(2), device=x.device).to(x.dtype)[:, None] / x.size(2)),
        "detach": lambda x: x + 0.5 * x.detach(),
        "type_as": lambda x: x + (x > 0.2).type_as(x),
    }

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose(*self.KINDS)

    def forward(self, x):
        return self.KINDS[self.chosen](x)


def _augmented(x):
    y = x * 2
    y -= 0.4
    y *= 0.6
    y /= 1.5
    return y


class Conv(Block):
    """A convolution with anything that one can have, shrinking or not."""

    def __init__(self, choose, x, out=None):
        super().__init__()
        channels = x.shape[1]
        out = out or choose(channels, 4, 6, 8)
        kernel = choose((3, 3), (1, 1), (1, 3), (3, 1), (5, 3), (2, 2), (4, 3))
        mode = choose("zeros", "zeros", "reflect", "replicate", "circular")
        dilation = choose(1, 1, 2, (2, 1))
        same = choose(True, False)
        stride = 1 if same else choose(1, 2, (2, 1), (1, 2))
        padding = "same" if same else choose(0, 1, (1, 2), (0, 1))
        need(stride == 1 or min(x.shape[2:]) >= 8)
        shared = [g for g in (1, 2, channels) if channels % g == 0 and out % g == 0]
        self.conv = nn.Conv2d(
            channels,
            out,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=choose(*shared),
            bias=choose(True, False),
            padding_mode=mode,
        )

    def forward(self, x):
        return self.conv(x)


class SameConv(Block):
    """A convolution that keeps the shape; as a module or as `F.conv2d` on a parameter, plain or depthwise."""

    def __init__(self, choose, x):
        super().__init__()
        channels = x.shape[1]
        self.chosen = choose("module", "functional", "depthwise", "conv-bn", "bn-conv")
        rows, columns = choose((3, 3), (1, 3), (3, 1), (1, 1), (5, 3))
        self.conv = nn.Conv2d(
            channels,
            channels,
            (rows, columns),
            padding=(rows // 2, columns // 2),
            groups=channels if self.chosen == "depthwise" else 1,
        )
        self.norm = nn.BatchNorm2d(channels) if "bn" in self.chosen else None

    def forward(self, x):
        if self.chosen == "functional":
            return F.conv2d(x, self.conv.weight, self.conv.bias, padding=self.conv.padding)
        if self.chosen == "conv-bn":
            return self.norm(self.conv(x))
        if self.chosen == "bn-conv":
            return self.conv(self.norm(x))
        return self.conv(x)


class Norm(Block):
    def __init__(self, choose, x):
        super().__init__()
        channels = x.shape[1]
        self.chosen = choose("batch", "group", "instance", "tracked", "layer", "whole", "response", "unit", "centre")
        make = {
            "batch": lambda: nn.BatchNorm2d(channels),
            "group": lambda: nn.GroupNorm(2 if channels % 2 == 0 else 1, channels),
            "instance": lambda: nn.InstanceNorm2d(channels, affine=True),
            "tracked": lambda: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
            "layer": lambda: nn.LayerNorm(channels),
            "response": lambda: nn.LocalResponseNorm(3, alpha=0.5),
        }
        self.norm = make[self.chosen]() if self.chosen in make else None

    def forward(self, x):
        if self.chosen == "layer":
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.chosen == "whole":
            return F.layer_norm(x, x.shape[1:])
        if self.chosen == "unit":
            return 2 * F.normalize(x, dim=1, eps=0.1)
        if self.chosen == "centre":
            return x - x.mean((2, 3), keepdim=True)
        return self.norm(x)


class Pool(Block):
    KINDS: ClassVar = {
        "max": lambda x: F.max_pool2d(x, 2),
        "max ceil": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        "max dilated": lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
        "avg": lambda x: F.avg_pool2d(x, 2),
        "avg border": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        "avg ceil": lambda x: F.avg_pool2d(x, (3, 2), ceil_mode=True),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, (5, 7)),
        "adaptive max": lambda x: F.adaptive_max_pool2d(x, (6, 5)),
        "lp": lambda x: F.lp_pool2d(x.abs() + 0.1, 2, 2),
    }
    MODULES: ClassVar = {
        "MaxPool2d": lambda: nn.MaxPool2d(3, 2, 1),
        "MaxPool2d ceil": lambda: nn.MaxPool2d((2, 3), ceil_mode=True),
        "AvgPool2d": lambda: nn.AvgPool2d(3, 2, 1),
        "AvgPool2d divisor": lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False, divisor_override=3),
        "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((None, 6)),
    }

    def __init__(self, choose, x):
        super().__init__()
        need(min(x.shape[2:]) >= 8)
        self.chosen = choose(*self.KINDS, *self.MODULES)
        self.module = self.MODULES[self.chosen]() if self.chosen in self.MODULES else None

    def forward(self, x):
        return self.KINDS[self.chosen](x) if self.module is None else self.module(x)


class SamePool(Block):
    """Pooling with stride 1, padded to keep the shape."""

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose("max", "avg", "avg border")

    def forward(self, x):
        if self.chosen == "max":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=self.chosen == "avg")


# Joins: what comes back from a branch meets what went past it. x is the trunk, y the branch.

JOINS = {
    "x + y": lambda x, y: x + y,
    "x.add(y)": lambda x, y: x.add(y),
    "torch.add": lambda x, y: torch.add(x, y, alpha=0.5),
    "y += x": lambda x, y: _plus(x, y),
    "x += y": lambda x, y: _plus(y, x),
    "y.add_(x)": lambda x, y: y.add_(x),
    "x - y": lambda x, y: x - y,
    "torch.sub": lambda x, y: torch.sub(y, x),
    "y.sub_(x)": lambda x, y: y.sub_(x, alpha=0.5),
    "x * y": lambda x, y: x * torch.tanh(y),
    "y.mul_": lambda x, y: y.mul_(torch.sigmoid(x)),
    "addcmul": lambda x, y: torch.addcmul(x, y, torch.sigmoid(x), value=0.5),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "maximum": lambda x, y: torch.maximum(x, y),
    "stack": lambda x, y: torch.stack([x, y]).sum(0),
    "sum": lambda x, y: sum([x, y]),
    "divide": lambda x, y: x / (1 + y.square()),
}


def _plus(x, y):
    y += x
    return y


class Residual(Block):
    """x joined with a branch of one to three blocks; the branch may begin by writing into x."""

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose(*JOINS)
        self.branch = nn.Sequential()
        for _ in range(choose(1, 2, 3)):
            self.branch.append(fitting(choose, x, KEEPING))
        need(self.branch(x.clone()).shape == x.shape)

    def forward(self, x):
        return JOINS[self.chosen](x, self.branch(x))


class Downsampled(Block):
    """A residual block that halves both axes: strided branch, strided 1x1 convolution or pooled shortcut, one ReLU."""

    def __init__(self, choose, x):
        super().__init__()
        need(min(x.shape[2:]) >= 8)
        channels, out = x.shape[1], choose(4, 6, 8)
        self.chosen = choose("projection", "pooled")
        self.conv1, self.norm1 = nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.project = nn.Conv2d(channels, out, 1, 2 if self.chosen == "projection" else 1)

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.chosen == "pooled":
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        y += self.project(x)
        return self.relu(y)


class Branches(Block):
    """Two to four branches side by side, concatenated, and mixed by a 1x1 convolution."""

    def __init__(self, choose, x):
        super().__init__()
        self.branches = nn.ModuleList([fitting(choose, x, KEEPING) for _ in range(choose(2, 3, 4))])
        self.past = choose(True, False)
        self.chosen = choose("cat", "concat", "keyword")
        width = sum(branch(x.clone()).shape[1] for branch in self.branches) + (x.shape[1] if self.past else 0)
        self.mix = nn.Conv2d(width, choose(4, 6, 8), 1)

    def forward(self, x):
        parts = [branch(x) for branch in self.branches]
        if self.past:
            parts.insert(0, x)
        if self.chosen == "concat":
            return self.mix(torch.concat(parts, 1))
        if self.chosen == "keyword":
            return self.mix(torch.cat(tensors=tuple(parts), dim=-3))
        return self.mix(torch.cat(parts, 1))


class Dense(Block):
    """Every convolution sees all that came before, from a list that grows within the forward."""

    def __init__(self, choose, x):
        super().__init__()
        channels, growth = x.shape[1], choose(2, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels + growth * k) for k in range(2)])
        self.convs = nn.ModuleList([nn.Conv2d(channels + growth * k, growth, 3, padding=1) for k in range(2)])
        self.out = nn.Conv2d(channels + 2 * growth, choose(4, 6, 8), 1)

    def forward(self, x):
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        return self.out(torch.cat(features, dim=1))


class Twice(Block):
    """The same convolution and the same activation module, called twice."""

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose("one after the other", "side by side")
        self.conv = nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1)
        self.act = choose(nn.ReLU, nn.Tanh, nn.SiLU)()

    def forward(self, x):
        if self.chosen == "side by side":
            return self.act(self.conv(x)) - 0.5 * self.act(self.conv(x.flip(-1)))
        return self.act(self.conv(self.act(self.conv(x))))


class Overwritten(Block):
    """A tensor that a branch reads before or after another writes into it."""

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose("read first", "read later", "read a view", "write a view", "write a channel")
        self.one = nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1)
        self.two = nn.Conv2d(x.shape[1], x.shape[1], 1)

    def forward(self, x):
        y = self.one(x)
        if self.chosen == "read first":
            z = y * 0.5
            y.add_(1).clamp_(min=0)
            return y + z
        if self.chosen == "read later":
            F.leaky_relu(y, 0.2, inplace=True)
            return self.two(x) - y
        if self.chosen == "read a view":
            view = y[:, :2]
            y.mul_(0.5)
            return torch.cat([view, y[:, 2:]], 1) + self.two(x)
        if self.chosen == "write a view":
            y[:, :, 1:3].mul_(-0.5)
            return y + self.two(x)
        y[:, 0] = y[:, 1] * 0.5
        return y


class Drop(Block):
    """What does nothing in eval mode."""

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose("module", "in place", "channels", "functional", "depth", "identity")
        make = {
            "module": lambda: nn.Dropout(0.3),
            "in place": lambda: nn.Dropout(0.3, inplace=True),
            "channels": lambda: nn.Dropout2d(0.3),
            "identity": lambda: nn.Identity(),
        }
        self.module = make[self.chosen]() if self.chosen in make else None

    def forward(self, x):
        if self.chosen == "functional":
            return F.dropout(x, 0.4, training=self.training)
        if self.chosen == "depth":
            return x * (torch.rand(x.shape[0], 1, 1, 1) > 0.5) if self.training else x
        return self.module(x)


class Excite(Block):
    """Channels weighed by what all positions say together."""

    POOLS: ClassVar = {
        "mean list": lambda x: x.mean([2, 3], keepdim=True),
        "mean tuple": lambda x: x.mean((-2, -1), keepdim=True),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1),
        "amax": lambda x: x.amax(dim=(2, 3), keepdim=True),
        "view": lambda x: x.view(x.size(0), x.size(1), -1).mean(-1)[:, :, None, None],
        "std": lambda x: x.flatten(2).std(-1).unsqueeze(-1).unsqueeze(-1),
    }

    def __init__(self, choose, x):
        super().__init__()
        channels = x.shape[1]
        self.chosen = choose(*self.POOLS)
        self.gate = choose("sigmoid", "Hardsigmoid", "in place")
        self.linear = choose(True, False)
        make = nn.Linear if self.linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.down, self.up = make(channels, 3), make(3, channels)
        self.hard = nn.Hardsigmoid()

    def forward(self, x):
        pooled = self.POOLS[self.chosen](x)
        if self.linear:
            pooled = pooled.flatten(1)
        scale = self.up(torch.relu(self.down(pooled)))
        if self.linear:
            scale = scale[..., None, None].expand_as(x)
        if self.gate == "in place":
            return (x * 1.0).mul_(scale.sigmoid())
        return x * (scale.sigmoid() if self.gate == "sigmoid" else self.hard(scale))


class Attention(Block):
    """Every position looks at every other."""

    def __init__(self, choose, x):
        super().__init__()
        channels = x.shape[1]
        need(channels % 2 == 0 and x.shape[2] * x.shape[3] <= 100)
        self.chosen = choose("softmax", "scaled_dot_product", "MultiheadAttention")
        self.norm = nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        if self.chosen == "MultiheadAttention":
            self.attend = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x):
        n, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        if self.chosen == "MultiheadAttention":
            mixed, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        elif self.chosen == "softmax":
            q, k, v = self.qkv(tokens).chunk(3, dim=-1)
            mixed = torch.softmax(q @ k.transpose(-2, -1) / c**0.5, dim=-1) @ v
        else:
            heads = self.qkv(tokens).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
            q, k, v = heads.unbind(0)
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w)


class ChannelsLast(Block):
    """Linear layers over the last axis, as ConvNeXt and Swin have them, scaled by a parameter."""

    def __init__(self, choose, x):
        super().__init__()
        channels = x.shape[1]
        self.norm, self.act = nn.LayerNorm(channels), nn.GELU()
        self.wide, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.scale = nn.Parameter(torch.empty(channels))

    def forward(self, x):
        y = self.norm(x.permute(0, 2, 3, 1))
        y = self.scale * self.narrow(self.act(self.wide(y)))
        return x + y.permute(0, 3, 1, 2).contiguous()


class Coarse(Block):
    """A detour over a smaller grid and back, added to x."""

    MODES: ClassVar = {
        "nearest": {"mode": "nearest"},
        "nearest-exact": {"mode": "nearest-exact"},
        "bilinear": {"mode": "bilinear", "align_corners": False},
        "corners": {"mode": "bilinear", "align_corners": True},
        "bicubic": {"mode": "bicubic"},
    }

    def __init__(self, choose, x):
        super().__init__()
        need(min(x.shape[2:]) >= 6)
        self.chosen = choose(*self.MODES)
        self.conv = nn.Conv2d(x.shape[1], x.shape[1], 3, padding=1)

    def forward(self, x):
        y = self.conv(F.avg_pool2d(x, 3, 2))
        return x + F.interpolate(y, size=x.shape[-2:], **self.MODES[self.chosen])


class Upsample(Block):
    """Twice the size, in one of the ways networks do it."""

    def __init__(self, choose, x):
        super().__init__()
        channels = x.shape[1]
        need(max(x.shape[2:]) <= 9)
        self.chosen = choose("transposed", "overlapping", "grouped", "shuffle", "Upsample", "interpolate", "repeat")
        make = {
            "transposed": lambda: nn.ConvTranspose2d(channels, 4, 2, 2),
            "overlapping": lambda: nn.ConvTranspose2d(channels, 6, 3, 2, padding=1, output_padding=1, bias=False),
            "grouped": lambda: nn.ConvTranspose2d(channels, channels, (4, 3), (2, 1), padding=1, groups=channels),
            "shuffle": lambda: nn.Conv2d(channels, 16, 3, padding=1),
            "Upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        }
        self.module = make[self.chosen]() if self.chosen in make else None

    def forward(self, x):
        if self.chosen == "interpolate":
            return F.interpolate(x, scale_factor=2.0)
        if self.chosen == "repeat":
            return x.repeat_interleave(2, dim=2).repeat(1, 1, 1, 2)
        y = self.module(x)
        return F.pixel_shuffle(y, 2) if self.chosen == "shuffle" else y


class Shuffle(Block):
    """Channels or positions change places."""

    def __init__(self, choose, x):
        super().__init__()
        need(x.shape[1] % 2 == 0)
        self.chosen = choose("view", "module", "functional", "flip", "roll", "index", "fold space")

    def forward(self, x):
        if self.chosen == "view":
            n, c, h, w = x.size()
            return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)
        if self.chosen == "module":
            return F.channel_shuffle(x, 2)
        if self.chosen == "functional":
            return torch.cat(torch.split(x, x.shape[1] // 2, dim=1)[::-1], dim=1)
        if self.chosen == "flip":
            return x.flip(3) + 0.5 * x
        if self.chosen == "roll":
            return torch.roll(x, shifts=(1, -2), dims=(2, 3))
        if self.chosen == "index":
            return x[:, [*range(1, x.shape[1]), 0]]
        return x.transpose(2, 3).reshape(x.shape[0], x.shape[1], x.shape[2], -1)


class Split(Block):
    """Half of the channels go one way, half another."""

    def __init__(self, choose, x):
        super().__init__()
        need(x.shape[1] % 2 == 0)
        self.half = x.shape[1] // 2
        self.chosen = choose("chunk", "split", "sizes", "slice", "narrow", "gate")
        self.conv = nn.Conv2d(self.half, self.half, 3, padding=1)

    def halves(self, x):
        if self.chosen == "chunk":
            return x.chunk(2, dim=1)
        if self.chosen == "split":
            return torch.split(x, self.half, 1)
        if self.chosen == "sizes":
            return x.split([self.half, self.half], dim=1)
        if self.chosen == "narrow":
            return x.narrow(1, 0, self.half), x.narrow(1, self.half, self.half)
        return x[:, : self.half], x[:, self.half :]

    def forward(self, x):
        one, two = self.halves(x)
        if self.chosen == "gate":
            return torch.cat([self.conv(one), F.glu(x, dim=1)], 1)
        return torch.cat((one, F.relu(self.conv(two))), dim=1)


class Slice(Block):
    """Some of the positions."""

    KINDS: ClassVar = {
        "strided": lambda x: x[:, :, ::2, ::2],
        "columns": lambda x: x[..., 1::2],
        "cropped": lambda x: x[:, :, 1:-1, :-2],
        "ellipsis": lambda x: x[..., 2:, :],
        "narrow": lambda x: x.narrow(2, 1, x.shape[2] - 2),
        "patches": lambda x: _patches(x),
        "chunked": lambda x: torch.cat(x.chunk(2, dim=3)[::-1], dim=3),
    }

    def __init__(self, choose, x):
        super().__init__()
        need(min(x.shape[2:]) >= 8)
        self.chosen = choose(*self.KINDS)

    def forward(self, x):
        return self.KINDS[self.chosen](x)


def _patches(x):
    """Mean over the four phases of a grid of even size."""
    x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
    phases = [x[:, :, i::2, j::2] for i in range(2) for j in range(2)]
    return phases[0] + phases[1] * 0.5 - phases[2] + phases[3] * 0.25


class Constant(Block):
    """What does not depend on the input: parameters and buffers, added, multiplied or concatenated."""

    def __init__(self, choose, x):
        super().__init__()
        _, channels, height, width = x.shape
        self.chosen = choose("bias", "scale", "position", "coordinates", "token", "expand_as")
        self.parameter = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.register_buffer("grid", torch.empty(1, 2, height, width))
        self.mix = nn.Conv2d(channels + 2, channels, 1) if self.chosen in ("coordinates", "token") else None

    def forward(self, x):
        if self.chosen == "bias":
            return x + self.parameter
        if self.chosen == "scale":
            return self.parameter.exp() * x
        if self.chosen == "position":
            return x + self.grid[:, :1]
        if self.chosen == "coordinates":
            return self.mix(torch.cat([x, self.grid.expand(x.shape[0], -1, -1, -1)], 1))
        if self.chosen == "token":
            tokens = self.parameter[:, :2].expand(x.size(0), 2, *x.shape[2:])
            return self.mix(torch.cat([tokens, x], dim=1))
        return x - self.parameter.expand_as(x)


class Pad(Block):
    def __init__(self, choose, x):
        super().__init__()
        need(max(x.shape[2:]) <= 18)
        self.chosen = choose(
            "constant", "value", "reflect", "replicate", "circular", "ReflectionPad2d", "ZeroPad2d", "crop"
        )
        make = {"ReflectionPad2d": lambda: nn.ReflectionPad2d((1, 2, 0, 1)), "ZeroPad2d": lambda: nn.ZeroPad2d(1)}
        self.module = make[self.chosen]() if self.chosen in make else None

    def forward(self, x):
        if self.module is not None:
            return self.module(x)
        if self.chosen == "value":
            return F.pad(x, (1, 0, 2, 1), value=0.7)
        if self.chosen == "crop":
            return F.pad(x, (-1, 1, 0, -1))
        return F.pad(x, (1, 1, 0, 2), mode=self.chosen)


class Mix(Block):
    """Channels mixed without a convolution."""

    def __init__(self, choose, x):
        super().__init__()
        self.chosen = choose("einsum", "matmul", "softmax", "cumsum", "sort")
        self.weight = nn.Parameter(torch.empty(x.shape[1], x.shape[1]))

    def forward(self, x):
        if self.chosen == "einsum":
            return torch.einsum("nchw,dc->ndhw", x, self.weight)
        if self.chosen == "matmul":
            return (self.weight @ x.flatten(2)).view(x.shape)
        if self.chosen == "softmax":
            return 3 * F.softmax(x, dim=1) + 0.3 * x
        if self.chosen == "cumsum":
            return x.cumsum(-1) / x.shape[-1] + x
        return x.sort(dim=1).values


class Head(nn.Module):
    """From the last activation to (N, CLASSES) scores."""

    POOLS: ClassVar = {
        "mean list": lambda x: x.mean([2, 3]),
        "mean tuple": lambda x: x.mean((-2, -1)),
        "mean twice": lambda x: torch.mean(torch.mean(x, dim=3), dim=2),
        "adaptive flatten": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        "adaptive squeeze": lambda x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(-1).squeeze(-1),
        "adaptive view": lambda x: F.adaptive_avg_pool2d(x, (2, 1)).view(x.size(0), -1),
        "amax": lambda x: x.amax((2, 3)),
        "logsumexp": lambda x: x.flatten(2).logsumexp(-1),
        "flatten": lambda x: torch.flatten(x, 1),
        "reshape": lambda x: x.reshape(x.shape[0], -1),
        "arithmetic": lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
    }

    def __init__(self, choose, x):
        super().__init__()
        # A view needs rows that lie in order, which a permutation before it may have undone.
        self.chosen = choose(*(name for name in self.POOLS if x.is_contiguous() or name != "adaptive view"))
        width = self.POOLS[self.chosen](x).shape[1]
        self.hidden = nn.Linear(width, 7) if choose(True, False) or width > 100 else None
        self.last = nn.Linear(7 if self.hidden is not None else width, CLASSES)
        self.softmax = choose(None, None, None, nn.Softmax(dim=1), nn.LogSoftmax(dim=-1))

    def extra_repr(self):
        return self.chosen

    def forward(self, x):
        x = self.POOLS[self.chosen](x)
        if self.hidden is not None:
            x = F.relu(self.hidden(x), inplace=True)
        scores = self.last(x)
        return scores if self.softmax is None else self.softmax(scores)


KEEPING = (
    SameConv,
    Activation,
    Norm,
    SamePool,
    Arithmetic,
    Drop,
    Excite,
    Twice,
    Constant,
    Mix,
    Overwritten,
    ChannelsLast,
)
BLOCKS = (
    *KEEPING,
    *(Conv, Conv, Pool, Residual, Residual, Downsampled, Branches, Dense, Attention, Coarse, Upsample, Shuffle),
    *(Split, Slice, Pad),
)


def fitting(choose, x, kinds):
    """A block of one of the kinds that takes x and can be differentiated; weights are drawn."""
    for _ in range(20):
        try:
            block = wake(choose(*kinds)(choose, x)).eval()
            leaf = x.clone().requires_grad_()
            out = block(leaf * 1)
            need(out.ndim == 4 and out.shape[0] == len(x) and min(out.shape[2:]) >= 3 and out.shape[1] >= 2)
            need(out.isfinite().all() and out.std() > 0.02)
            out.square().sum().backward()
        except Unfit:
            continue
        except RuntimeError as error:  # a backward that misses what was written over, a padding wider than the map
            if not any(word in str(error) for word in ("inplace", "in-place", "adding", "smaller", "view size")):
                raise
            continue
        if next(block.children(), None) is None and choose(True, True, False):
            block.through = nn.Identity()
        return block
    return wake(SameConv(lambda *options: options[0], x))


@torch.no_grad()
def wake(module):
    """Weights of unit gain, biases and statistics that are not zero; draws from the global generator."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.ndim > 1 and name != "parameter":
                transposed = isinstance(part, nn.ConvTranspose2d)
                fan = parameter[0].numel() if not transposed else parameter[:, 0].numel() / part.stride[0] ** 2
                parameter.normal_(0, (1.6 / fan) ** 0.5)
            elif name == "weight":
                parameter.uniform_(0.5, 1.5) if parameter.numel() > 1 else parameter.fill_(0.2)
            else:
                parameter.normal_(0, 0.4)
        if getattr(part, "running_mean", None) is not None:
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
    for name, buffer in module.named_buffers():
        if name.rpartition(".")[2] == "grid":
            buffer.normal_()
    return module


class Network(nn.Module):
    """A stem, blocks and a head.

    Attributes:
        size: (H, W) of the inputs it was made for.
        output: "tensor" (N, CLASSES); "dict" {"features", "logits"}; "tuple" (scores, features).
    """

    def __init__(self, choose, depth):
        super().__init__()
        self.size = (choose(14, 12, 13, 17, 20), choose(14, 12, 15, 16, 19))
        self.output = choose("tensor", "tensor", "tensor", "dict", "tuple")
        x = inputs(self, 6)
        self.stem = wake(Conv(choose, x, out=choose(4, 6, 8)))
        self.blocks = nn.ModuleList()
        with torch.no_grad():
            x = self.stem(x)
        for _ in range(depth):
            block = fitting(choose, x, BLOCKS)
            with torch.no_grad():
                x = block(x)
            self.blocks.append(block)
        self.head = wake(Head(choose, x))
        self.eval()
        _tune(self, self.head.last)

    def extra_repr(self):
        return f"size={self.size}, output={self.output!r}"

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        scores = self.head(x)
        if self.output == "dict":
            return {"features": x, "logits": scores}
        return (scores, x) if self.output == "tuple" else scores


@torch.no_grad()
def _tune(net, last):
    """Each class's score has mean 0 and scale 1 over the inputs, so that every class gets its turn."""
    kept = []
    handle = last.register_forward_hook(lambda module, args, output: kept.append(output))
    net(inputs(net, 12))
    handle.remove()
    scores = kept[0].movedim(1, -1).flatten(0, -2)
    mean, std = scores.mean(0), scores.std(0).clamp_min(1e-3)
    last.weight.div_(std.view(-1, *[1] * (last.weight.ndim - 1)))
    last.bias.sub_(mean).div_(std)


def inputs(net, n=2, seed=1, dtype=torch.float32):
    """(n, 3, H, W) for a network of this module: smooth blobs and noise, of unit scale."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 4, 5, generator=generator)
    fine = torch.randn(n, 3, *net.size, generator=generator)
    return (F.interpolate(coarse, net.size, mode="bilinear") + 0.5 * fine).to(dtype)


# Drawing


@st.composite
def networks(draw, max_depth=5):
    """A hypothesis strategy for networks; a failing one shrinks to few blocks, each with its first options."""
    depth = draw(st.integers(1, max_depth))
    return _drawn(Network, lambda *options: draw(st.sampled_from(options)), draw(st.integers(0, 99)), depth)


def network(seed, depth=4):
    """A network drawn without hypothesis; the same for the same seed."""
    return _drawn(Network, _chooser(seed), seed, depth)


def _chooser(seed):
    generator = random.Random(seed)
    return lambda *options: generator.choice(options)


def _drawn(make, choose, seed, *args):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(choose, *args)


# Whole architectures


class UNet(nn.Module):
    """Two steps down, two up by transposed convolution or interpolation, skips by concatenation; (N, CLASSES, H, W)."""

    def __init__(self, choose):
        super().__init__()
        self.size = (choose(16, 20, 12), choose(16, 12, 20))
        self.up, self.join = choose("transposed", "interpolate"), choose("cat", "add")
        self.down = nn.ModuleList([self._pair(a, b, choose) for a, b in ((3, 4), (4, 6), (6, 8))])
        self.pool = choose(nn.MaxPool2d, nn.AvgPool2d)(2)
        self.lift = nn.ModuleList(
            [
                nn.ConvTranspose2d(a, b, 2, 2) if self.up == "transposed" else nn.Conv2d(a, b, 1)
                for a, b in ((8, 6), (6, 4))
            ]
        )
        wide = 2 if self.join == "cat" else 1
        self.merge = nn.ModuleList([self._pair(wide * c, c, choose) for c in (6, 4)])
        self.last = nn.Conv2d(4, CLASSES, 1)
        wake(self).eval()
        _tune(self, self.last)

    @staticmethod
    def _pair(a, b, choose):
        norm = choose(lambda: nn.BatchNorm2d(b), lambda: nn.GroupNorm(2, b), lambda: nn.InstanceNorm2d(b, affine=True))
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), norm(), nn.ReLU(inplace=choose(True, False)))

    def extra_repr(self):
        return f"size={self.size}, up={self.up!r}, join={self.join!r}"

    def forward(self, x):
        skips = []
        for step in self.down[:-1]:
            x = step(x)
            skips.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for lift, merge in zip(self.lift, self.merge, strict=True):
            skip = skips.pop()
            if self.up == "interpolate":
                x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = lift(x)
            x = merge(torch.cat([skip, x], 1) if self.join == "cat" else skip + x)
        return self.last(x)


class Dilated(nn.Module):
    """Growing dilation, a pyramid with an image-level branch, full size again; {"out": (N, CLASSES, H, W)}."""

    def __init__(self, choose):
        super().__init__()
        self.size = (choose(15, 16, 20), choose(17, 16, 13))
        act = choose(nn.ReLU, nn.Hardswish, nn.SiLU)
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), act(inplace=True)),
            *(nn.Conv2d(6, 6, 3, padding=2, dilation=2), nn.BatchNorm2d(6), act(inplace=True)),
        )
        self.pyramid = nn.ModuleList([nn.Conv2d(6, 4, 3, padding=d, dilation=d) for d in (1, 2, 4)])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(16, 6, 1), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Conv2d(6, CLASSES, 1)
        wake(self).eval()
        _tune(self, self.last)

    def extra_repr(self):
        return f"size={self.size}"

    def forward(self, x):
        size = x.shape[-2:]
        x = self.features(x)
        parts = [F.relu(conv(x)) for conv in self.pyramid]
        parts.append(F.interpolate(self.whole(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        x = self.last(self.mix(torch.cat(parts, dim=1)))
        return {"out": F.interpolate(x, size=size, mode="bilinear", align_corners=False)}


def unet(seed=0):
    return _drawn(UNet, _chooser(seed), seed)


def dilated(seed=0):
    return _drawn(Dilated, _chooser(seed), seed)


def inner(output):
    """A callable target for maps of scores: the mean of class 2 over the middle of the image, each row for itself."""
    maps = output["out"] if isinstance(output, dict) else output
    height, width = maps.shape[-2:]
    return maps[:, 2, height // 4 : -(height // 4), width // 4 : -(width // 4)].mean((1, 2))


ARCHITECTURES = {"unet": unet, "dilated": dilated}

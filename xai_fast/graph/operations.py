"""Operations: everything that is known of each, in one table. A new operation is one row.

A row says what the mathematics of an operation is; code that follows from that stands where it is used, under the same
word: how a box passes it in `engine/replay/local/rules`, its gradient in `engine/gradients/backward`, its rescale rule
in `engine/gradients/rescale`, the size of its results in `magnitudes`, its fusion in `fuse`. An empty cell means that
nothing is known: whole maps run, autograd leads gradients back, the rescale rule refuses, sizes are measured.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .layout import PlainConv2d
from .operation import UNKNOWN, Content, Fusion, Gradient, Kind, Linear, Operation, Region, Rescale, Size

OPERATIONS: dict[str, Operation] = {}
_MODULES: dict[type[nn.Module], str] = {PlainConv2d: "conv2d"}
_SPELLINGS: dict[str, str] = {}


def _row(
    names: str,
    kind: Kind,
    region: Region = "",
    *,
    linear: Linear = "",
    gradient: Gradient = "",
    rescale: Rescale = "",
    size: Size = "",
    fusion: Fusion = "",
    differences: bool = False,
    content: Content = "all",
    modules: str = "",
    spelt: str = "",
) -> None:
    """Enters operations about which the same is known.

    Args:
        names: of the operations; one with "{n}" is one for each number of axes from 1 to 3.
        kind: as everything up to `content`, see `Operation`.
        region: see there.
        linear: see there.
        gradient: see there.
        rescale: see there.
        size: see there.
        fusion: see there.
        differences: see there.
        content: see there.
        modules: classes in torch.nn that do the first of them, per number of axes likewise.
        spelt: under which other names torch keeps the first of them.
    """
    for axes in range(1, 4) if "{n}" in names else (0,):
        each = [name.format(n=axes) for name in names.split()]
        for name in each:
            OPERATIONS[name] = Operation(
                name, kind, region, linear, gradient, rescale, size, fusion, differences, content
            )
        _MODULES.update((getattr(nn, module.format(n=axes)), each[0]) for module in modules.split())
        _SPELLINGS.update((other.format(n=axes), each[0]) for other in spelt.split())


def _function(names: str, **known: Any) -> None:
    """A function of one element, by which a box passes as it is; its multiplier is a quotient of differences."""
    _row(names, Kind.ELEMENTWISE, "elementwise", rescale="quotient", **known)


def _view(names: str, region: Region = "", **known: Any) -> None:
    """The elements of the first argument in another shape or order, or some of them."""
    _row(names, Kind.SHAPE, region, linear="first", size="same", **known)


def _convolution(name: str, **known: Any) -> None:
    _row(name, Kind.WINDOWED, "convolution", linear="first", gradient="convolution", size="weighted", **known)


# fmt: off
# Functions of one element

_function("relu", gradient="of output", size="no larger", modules="ReLU")
_function("relu6", gradient="of output", size="no larger", modules="ReLU6")
_function("hardtanh", gradient="of output", size="no larger", modules="Hardtanh", spelt="hard_tanh")
_function("leaky_relu", gradient="of output", modules="LeakyReLU")
_function("sigmoid", gradient="of output", size="at most one", modules="Sigmoid")
_function("tanh", gradient="of output", size="at most one", modules="Tanh")
_function("silu", gradient="of input", size="no larger", modules="SiLU")
_function("hardswish", gradient="of input", size="no larger", modules="Hardswish")
_function("gelu", gradient="of input", size="no larger", modules="GELU")
_function("mish", size="no larger", modules="Mish")
_function("threshold", size="no larger", modules="Threshold")
_function("hardsigmoid", size="at most one", modules="Hardsigmoid")
_function("softsign", size="at most one", modules="Softsign")
_function("elu", modules="ELU")
_function("celu", modules="CELU")
_function("selu", modules="SELU")
_function("rrelu", modules="RReLU")
_function("softplus", modules="Softplus")
_function("hardshrink", modules="Hardshrink")
_function("softshrink", modules="Softshrink")
_function("tanhshrink", modules="Tanhshrink")
_function("logsigmoid", modules="LogSigmoid", spelt="log_sigmoid")
_function("abs clamp clip clamp_min clamp_max", size="no larger")
_function("sin cos erf sign", size="at most one")
_function("exp expm1 log log1p log2 sqrt rsqrt square reciprocal round floor ceil nan_to_num")
_function("zeros_like ones_like full_like", content="none")

# The same element, in eval mode

_function("identity", linear="first", size="no larger", differences=True, modules="Identity")
_function("contiguous clone alias neg", linear="first", size="no larger", differences=True)
_row("detach", Kind.ELEMENTWISE, "elementwise", size="no larger", differences=True)
_function("positive float stochastic_depth", linear="first", size="no larger")
_function("to type_as", linear="first", size="no larger", content="first")
_function("dropout", linear="first", size="no larger",
          modules="Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout")
_function("dropout{n}d", linear="first")
_function("alpha_dropout feature_dropout double", linear="first")

# Windows of positions, and normalisation by channel

_row("conv conv_transpose", Kind.WINDOWED)
_convolution("conv1d", modules="Conv1d")
_convolution("conv2d", modules="Conv2d", fusion="convolution")
_convolution("conv3d", modules="Conv3d")
_row("conv_transpose{n}d", Kind.WINDOWED, "transposed convolution", linear="first", modules="ConvTranspose{n}d")
_row("pad", Kind.WINDOWED, "padding", linear="first", size="no larger",
     modules="ZeroPad1d ZeroPad2d ReflectionPad2d ReplicationPad2d ConstantPad2d")
_row("max_pool avg_pool lp_pool", Kind.POOLED)
_row("lp_pool{n}d", Kind.POOLED)
_row("max_pool{n}d", Kind.POOLED, "maximum pool", rescale="maximum", size="no larger",
     modules="MaxPool{n}d", spelt="max_pool{n}d_with_indices")
_row("avg_pool{n}d", Kind.POOLED, "mean pool", linear="first", size="mean", modules="AvgPool{n}d")
_row("batch_norm", Kind.CHANNELWISE, "channelwise", linear="first", gradient="scale", size="scaled",
     modules="BatchNorm1d BatchNorm2d BatchNorm3d")
_row("prelu", Kind.CHANNELWISE, "channelwise", rescale="quotient", modules="PReLU")

# Several tensors

_J = Kind.JOIN
_row("add", _J, "join", linear="all", gradient="sum", size="sum", differences=True, spelt="iadd radd")
_row("sub", _J, "join", linear="all", size="sum", differences=True, spelt="isub")
_row("rsub", _J, "join", linear="all", size="sum")
_row("mul", _J, "join", linear="factors", rescale="quotient", size="product", spelt="imul rmul")
_row("truediv", _J, "join", linear="first", rescale="quotient", spelt="itruediv")
_row("div", _J, "join", linear="first", rescale="quotient")
_row("pow", _J, "join", rescale="quotient")
_row("maximum minimum", _J, "join", rescale="quotient", size="no larger")
_row("addcmul", _J, "join", linear="later factors")
_row("where", _J, "join", linear="but condition", size="no larger")
_row("lerp", _J, "join", linear="but weight")
_row("gt lt ge le eq ne", _J, "join")
_row("cat concat concatenate", _J, "concatenation", linear="all", gradient="concatenation", size="no larger",
     differences=True)
_row("stack", _J, linear="all", size="no larger")

# All positions, or all channels

_G = Kind.GLOBAL
_row("linear", _G, "last axis", linear="first", gradient="matrix", size="weighted", fusion="linear",
     modules="Linear", spelt="linear_default")
_row("matmul bmm einsum", _G, linear="factors")
_row("addmm baddbmm", _G, linear="later factors")
_row("scaled_dot_product_attention", _G, size="attention")
_row("multi_head_attention", _G, size="attention module", fusion="attention", modules="MultiheadAttention")
_row("adaptive_avg_pool adaptive_max_pool", _G)
_row("adaptive_avg_pool{n}d", _G, "resampling", linear="first", size="no larger", modules="AdaptiveAvgPool{n}d")
_row("adaptive_max_pool{n}d", _G, rescale="maximum", size="no larger", modules="AdaptiveMaxPool{n}d")
_row("interpolate", _G, "resampling", linear="first", size="resized",
     modules="Upsample", spelt="upsample_bilinear2d upsample_nearest2d")
_row("upsample", _G, "resampling", linear="first", size="resized")
_row("mean", _G, "mean", linear="first", size="no larger")
_row("sum", _G, "mean", linear="first")
_row("cumsum", _G, "cumulation", linear="first")
_row("max min", _G, size="no larger")
_row("amax amin", _G, "extremum", size="no larger")
_row("std var", _G, "deviation")
_row("norm", _G, "norm")
_row("normalize", _G, "normalize")
_row("softmax", _G, "softmax", rescale="softmax", size="at most one", modules="Softmax Softmax2d")
_row("log_softmax", _G, "softmax", rescale="softmax", modules="LogSoftmax")
_row("glu", _G, "glu", modules="GLU")
_row("layer_norm", _G, "last axes", size="normalised", modules="LayerNorm")
_row("rms_norm", _G, "last axes", modules="RMSNorm")
_row("group_norm", _G, size="normalised", modules="GroupNorm")
_row("instance_norm", _G, size="normalised", modules="InstanceNorm1d InstanceNorm2d InstanceNorm3d")
_row("local_response_norm", _G, "channel window", modules="LocalResponseNorm")

# The same elements

_view("flatten", "reshape", modules="Flatten")
_view("unflatten", "reshape", modules="Unflatten")
_view("view", "reshape", spelt="unsafe_view")
_view("reshape squeeze unsqueeze", "reshape")
_view("view_as", "reshape", content="first")
_view("permute", "permutation", spelt="permute_copy")
_view("transpose movedim moveaxis swapaxes T mT", "permutation")
_view("slice", "narrow", spelt="slice_tensor")
_view("narrow select index_select flip", "narrow")
_view("getitem", "index")
_view("chunk split tensor_split", "split", differences=True)
_view("unbind", "unbind", differences=True)
_view("channel_shuffle", "channelwise", differences=True, modules="ChannelShuffle")
_view("pixel_shuffle", "shuffle", modules="PixelShuffle")
_view("pixel_unshuffle", "shuffle", modules="PixelUnshuffle")
_view("expand t roll repeat tile gather unfold")
_view("expand_as", content="first")
_row("fold", Kind.SHAPE, linear="first")

_row("size shape dim len numel getattr device dtype ndim", Kind.NUMBER)
# fmt: on

_DISPATCHED = {
    getattr(torch.nn.functional, f"{kind}_pool{n}d"): f"{kind}_pool{n}d"
    for kind in ("max", "adaptive_max")
    for n in (1, 2, 3)
}
_SPECIAL: dict[Any, str] = {operator.getitem: "getitem", getattr: "getattr", len: "len", **_DISPATCHED}


def operation_of(target: Callable[..., Any] | nn.Module | str) -> str:
    """The canonical name of what a call does: "relu" for nn.ReLU, F.relu, torch.relu_ and Tensor.relu alike; or ""."""
    if isinstance(target, nn.Module):
        return _MODULES.get(type(target), "")
    if isinstance(target, str):
        return _canonical(target)
    if target in _SPECIAL:
        return _SPECIAL[target]
    packet = getattr(target, "overloadpacket", None)  # aten.relu.default is called "default"
    return _canonical(getattr(packet or target, "__name__", ""))


def known_of(operation: str) -> Operation:
    """What is known of a canonical operation; `UNKNOWN` for "" and what has no row."""
    return OPERATIONS.get(operation, UNKNOWN)


def _canonical(name: str) -> str:
    name = name.strip("_")
    name = _SPELLINGS.get(name, name)
    return name if name in OPERATIONS else ""

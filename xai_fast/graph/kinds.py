"""What a step does: one canonical name for module, function and method, and how it treats positions and channels."""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .layout import PlainConv2d


class Kind(enum.Enum):
    """How a value's rows, channels and positions depend on what the step reads."""

    ELEMENTWISE = "each element depends on the same element of one tensor"
    CHANNELWISE = "as elementwise, with parameters per channel"
    POOLED = "each channel depends on a window of the same channel"
    WINDOWED = "each position depends on a window of positions, over channels"
    JOIN = "each element depends on the same element of several tensors, or tensors lie side by side"
    GLOBAL = "positions depend on all positions"
    SHAPE = "the same elements in another shape or order"
    NUMBER = "not a tensor: a size, a length, an index"
    UNKNOWN = "nothing is known"


_AXES = ("", "1d", "2d", "3d")


def _over_axes(*names: str) -> set[str]:
    return {name + axes for name in names for axes in _AXES}


_OPERATIONS = {
    Kind.ELEMENTWISE: {
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh"),
        *("hardswish", "hardsigmoid", "hardshrink", "softshrink", "softplus", "softsign", "tanhshrink", "logsigmoid"),
        *("abs", "neg", "exp", "expm1", "log", "log1p", "log2", "sqrt", "rsqrt", "square", "reciprocal", "sin", "cos"),
        *("clamp", "clip", "clamp_min", "clamp_max", "erf", "sign", "round", "floor", "ceil", "threshold", "rrelu"),
        *("identity", "dropout", "alpha_dropout", "feature_dropout", "contiguous", "clone", "detach", "to", "float"),
        *("double", "type_as", "stochastic_depth", "positive", "alias", "nan_to_num"),
        *("zeros_like", "ones_like", "full_like"),
        *_over_axes("dropout"),
    },
    Kind.CHANNELWISE: {"batch_norm", "prelu"},
    Kind.POOLED: _over_axes("max_pool", "avg_pool", "lp_pool"),
    Kind.WINDOWED: {*_over_axes("conv", "conv_transpose"), "pad"},
    Kind.JOIN: {
        *("add", "sub", "mul", "div", "truediv", "rsub", "pow", "maximum", "minimum", "cat", "concat", "concatenate"),
        *("addcmul", "where", "lerp", "stack", "gt", "lt", "ge", "le", "eq", "ne"),
    },
    Kind.GLOBAL: {
        *_over_axes("adaptive_avg_pool", "adaptive_max_pool"),
        *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "softmax", "log_softmax", "linear", "matmul"),
        *("bmm", "einsum", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"),
        *("scaled_dot_product_attention", "multi_head_attention", "normalize", "interpolate", "upsample"),
        *("baddbmm", "addmm", "norm", "cumsum", "glu"),
    },
    Kind.SHAPE: {
        *("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "unflatten", "expand", "t"),
        *("chunk", "split", "tensor_split", "unbind", "getitem", "select", "narrow", "slice", "flip", "roll", "mT"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "movedim", "swapaxes", "repeat", "view_as"),
        *("expand_as", "tile", "index_select", "gather", "unfold", "fold", "moveaxis", "T"),
    },
    Kind.NUMBER: {"size", "shape", "dim", "len", "numel", "getattr", "device", "dtype", "ndim"},
}
_KIND = {name: kind for kind, names in _OPERATIONS.items() for name in names}

_MODULES: dict[type[nn.Module], str] = {
    PlainConv2d: "conv2d",
    **{getattr(nn, f"Conv{n}d"): f"conv{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"ConvTranspose{n}d"): f"conv_transpose{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"BatchNorm{n}d"): "batch_norm" for n in (1, 2, 3)},
    **{getattr(nn, f"InstanceNorm{n}d"): "instance_norm" for n in (1, 2, 3)},
    **{getattr(nn, f"MaxPool{n}d"): f"max_pool{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"AvgPool{n}d"): f"avg_pool{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"AdaptiveAvgPool{n}d"): f"adaptive_avg_pool{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"AdaptiveMaxPool{n}d"): f"adaptive_max_pool{n}d" for n in (1, 2, 3)},
    **{getattr(nn, f"Dropout{n}"): "dropout" for n in ("", "1d", "2d", "3d")},
    nn.AlphaDropout: "dropout", nn.FeatureAlphaDropout: "dropout", nn.Identity: "identity",
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.ELU: "elu", nn.SELU: "selu", nn.CELU: "celu",
    nn.GELU: "gelu", nn.SiLU: "silu", nn.Mish: "mish", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.PReLU: "prelu",
    nn.Hardtanh: "hardtanh", nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid", nn.Softplus: "softplus",
    nn.Softsign: "softsign", nn.LogSigmoid: "logsigmoid", nn.Threshold: "threshold", nn.Hardshrink: "hardshrink",
    nn.Softshrink: "softshrink", nn.Tanhshrink: "tanhshrink", nn.RReLU: "rrelu",
    nn.Linear: "linear", nn.GroupNorm: "group_norm", nn.LayerNorm: "layer_norm", nn.RMSNorm: "rms_norm",
    nn.LocalResponseNorm: "local_response_norm", nn.GLU: "glu", nn.Softmax: "softmax", nn.LogSoftmax: "log_softmax",
    nn.Softmax2d: "softmax", nn.MultiheadAttention: "multi_head_attention", nn.Flatten: "flatten",
    nn.Unflatten: "unflatten", nn.PixelShuffle: "pixel_shuffle", nn.PixelUnshuffle: "pixel_unshuffle",
    nn.ChannelShuffle: "channel_shuffle", nn.Upsample: "interpolate", nn.ZeroPad1d: "pad", nn.ZeroPad2d: "pad",
    nn.ReflectionPad2d: "pad", nn.ReplicationPad2d: "pad", nn.ConstantPad2d: "pad",
}  # fmt: skip

# Names under which torch keeps the same thing: dispatched pools, aten's spellings, in-place dunders.
_ALIASES = {
    "boolean_dispatch": "", "max_pool1d_with_indices": "max_pool1d", "max_pool2d_with_indices": "max_pool2d",
    "iadd": "add", "imul": "mul", "isub": "sub", "itruediv": "truediv", "radd": "add", "rmul": "mul",
    "hard_tanh": "hardtanh", "log_sigmoid": "logsigmoid",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d", "linear_default": "linear",
    "upsample_bilinear2d": "interpolate", "upsample_nearest2d": "interpolate", "_unsafe_view": "view",
    "slice_tensor": "slice", "permute_copy": "permute",
}  # fmt: skip
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


def kind_of(operation: str) -> Kind:
    """The kind of a canonical operation."""
    return _KIND.get(operation, Kind.UNKNOWN)


def _canonical(name: str) -> str:
    name = name.strip("_")
    name = _ALIASES.get(name, name)
    return name if name in _KIND else ""

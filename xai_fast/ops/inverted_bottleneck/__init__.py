"""inverted_bottleneck: a pointwise, a depthwise and a pointwise convolution, of which only the result is stored."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import functional as F

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, not_on_cpu
from xai_fast.ops._library import compiled, no_library, older_than
from xai_fast.ops._panels import not_for_panels, side_by_side
from xai_fast.ops._traced import traced

ACTIVATIONS = ("none", "relu", "relu6", "silu", "hardswish")
SIDES, STRIDES = (3, 5, 7), (1, 2)  # of depthwise kernels
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class BottleneckWeights(NamedTuple):
    """Weights as `inverted_bottleneck` takes them, see there; made by `bottleneck_weights`."""

    expand: Tensor | None
    expand_bias: Tensor | None
    depth: Tensor
    depth_bias: Tensor
    project: Tensor | None
    project_bias: Tensor | None


def bottleneck_weights(
    expand: tuple[Tensor, Tensor | None] | None,
    depth: tuple[Tensor, Tensor | None],
    project: tuple[Tensor, Tensor | None] | None,
    panel: int,
) -> BottleneckWeights:
    """Lays out three convolutions' weights and biases for registers that hold half a panel of channels each.

    Args:
        expand: (M, C, 1, 1) and (M,), or None where there is no such convolution.
        depth: (M, 1, k, k) and (M,).
        project: (K, M, 1, 1) and (K,), or None.
        panel: how many channels lie side by side, see `register_panel`; even.

    Raises:
        ValueError: C is odd in bfloat16, whose channels are multiplied in pairs.
    """
    weight, bias = depth
    middle, side = len(weight), weight.shape[-1]
    missing, wide = -middle % panel, torch.float64 if weight.dtype is torch.float64 else torch.float32
    taps = F.pad(weight.detach().to(wide).reshape(middle, side * side), (0, 0, 0, missing))
    half = panel // 2
    return BottleneckWeights(
        None if expand is None else _paneled(expand[0], panel, 0),
        None if expand is None else _padded(expand[1], middle, half, wide, weight),
        taps.view(-1, panel, side * side).mT.contiguous(),
        _padded(bias, middle, half, wide, weight),
        None if project is None else _paneled(project[0], panel, missing),
        None if project is None else _padded(project[1], len(project[0]), panel, wide, weight),
    )


def _paneled(weight: Tensor, panel: int, missing: int) -> Tensor:
    """A weight (O, I, 1, 1) as (O / panel, (I + missing) / T, panel, T), filled up with zeros."""
    together = side_by_side(weight.dtype)
    weight = F.pad(weight.detach().flatten(1), (0, missing, 0, -len(weight) % panel))
    if weight.shape[1] % together:
        raise ValueError(f"a weight has {weight.shape[1]} input channels; in bfloat16 it takes an even number")
    return weight.view(-1, panel, weight.shape[1] // together, together).transpose(1, 2).contiguous()


def _padded(bias: Tensor | None, count: int, multiple: int, dtype: torch.dtype, like: Tensor) -> Tensor:
    """A bias of `count` numbers, zeros where there is none, filled up with zeros."""
    bias = like.new_zeros(count) if bias is None else bias
    return F.pad(bias.detach().to(dtype), (0, -count % multiple)).contiguous()


def not_for_registers(inputs: Tensor, *rest: Any) -> str | None:
    """Refuses what the kernel's vectors do not fit."""
    *weights, other, out, _means, _stride, _padding, _activation = rest
    depth = weights[2]
    return not_for_panels(inputs.dtype, depth.shape[2], (inputs, other, out), weights)


op = Op(
    "inverted_bottleneck",
    lazily(f"{__name__}.reference", "inverted_bottleneck"),
    writes=("out", "means"),
    in_place=("other",),
)
op.offer(
    "cpp",
    compiled("inverted_bottleneck"),
    unless=(no_library, older_than("inverted_bottleneck"), not_on_cpu, not_for_registers),
)


@traced(
    "(Tensor inputs, Tensor? expand, Tensor? expand_bias, Tensor depth, Tensor depth_bias, Tensor? project, "
    "Tensor? project_bias, Tensor? other, Tensor(a!) out, Tensor(b!)? means, int stride, int padding, "
    "str activation) -> ()"
)
def inverted_bottleneck(
    inputs: Tensor,
    expand: Tensor | None,
    expand_bias: Tensor | None,
    depth: Tensor,
    depth_bias: Tensor,
    project: Tensor | None,
    project_bias: Tensor | None,
    other: Tensor | None,
    out: Tensor,
    means: Tensor | None,
    stride: int,
    padding: int,
    activation: str,
) -> Tensor:
    """Fills `out` with the inverted residual of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), or a part of it.

    A pointwise convolution to more channels and its activation, a depthwise one and its activation, a pointwise one to
    fewer, and a sum. The wide maps between are never stored: some rows of some of their channels at a time stay in the
    cache. Without `expand` the depthwise one reads the inputs, without `project` it makes the result (what a
    squeeze-and-excitation gate needs). What a row gives does not depend on the rows beside it. In bfloat16 sums are of
    float32, and of what lies between only what `project` multiplies is rounded to bfloat16.

    Args:
        inputs: (N, C, H, W) float32, float64 or bfloat16, any strides.
        expand: (M / P, C / T, P, T), M channels in whole panels of P, T = 2 in bfloat16 and 1 otherwise, of the inputs'
            dtype. None where M is C.
        expand_bias: (M,), M in whole half panels, float32, of float64 inputs float64; as all biases and `depth`.
        depth: (M / P, k * k, P), M in whole panels, k 3, 5 or 7.
        depth_bias: (M,) in whole half panels.
        project: (K / P, M / T, P, T), both in whole panels, of the inputs' dtype, or None where K is M.
        project_bias: (K,) in whole panels.
        other: (N, K, H', W') or None, any strides; added to what `project` gives.
        out: (N, K, H', W'), H' = (H + 2 * padding - k) // stride + 1, any memory layout. Gradients do not pass. It may
            be `other`.
        means: (N, K) float32, of float64 inputs float64, dense, is filled with the mean over positions of the result
            before it is rounded to the dtype of `out`; None where nobody asks, and with `project`.
        stride: of the depthwise convolution, 1 or 2.
        padding: zeros around what it reads, 0 to k - 1.
        activation: behind `expand` and `depth`: "none", "relu", "relu6", "silu" or "hardswish".

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a setting does not fit.

    Cost: 2 * N * (H * W * C * M + H' * W' * M * (k * k + K)) operations; with several threads and few rows of the
    batch, up to k - 1 rows of positions per thread are expanded twice. Scratch memory of H' * W' * K numbers and
    4 * k * W * P per thread.
    """
    given = BottleneckWeights(expand, expand_bias, depth, depth_bias, project, project_bias)
    _check(inputs, given, other, out, (stride, padding, activation))
    _check_means(inputs, project, out, means)
    op(inputs, *given, other, out, means, stride, padding, activation)
    increment_version(out if means is None else (out, means))
    return out


def _check(
    inputs: Tensor, weights: BottleneckWeights, other: Tensor | None, out: Tensor, settings: tuple[int, int, str]
) -> None:
    _checks.check_dtype("inputs", inputs, _DTYPES)
    if inputs.dim() != 4:
        raise ValueError(f"`inputs` has shape {tuple(inputs.shape)}; it takes (N, C, H, W)")
    side = _checked_settings(weights.depth, *settings)
    stride, padding, _ = settings
    size = [(extent + 2 * padding - side) // stride + 1 for extent in inputs.shape[2:]]
    if min(size) < 1:
        raise ValueError(f"`inputs` has shape {tuple(inputs.shape)}; kernels of {side}x{side} find no place in it")
    _check_weights(inputs, weights, out)
    _checks.check_shape("out", out, (inputs.shape[0], out.shape[1], *size), "(N, K, H', W')")
    if other is not None:
        if weights.project is None:
            raise ValueError("`other` is given without `project`; it is added to what that gives")
        _checks.check_shape("other", other, tuple(out.shape), "(N, K, H', W')")
    wide = torch.float64 if inputs.dtype is torch.float64 else torch.float32
    values = {**weights._asdict(), "other": other, "out": out}
    for name, value in values.items():
        if value is not None:
            sums = name == "depth" or name.endswith("bias")
            _checks.check_dtype(name, value, (wide if sums else inputs.dtype,))
            _checks.check_device(name, value, inputs.device, "inputs")


def _check_means(inputs: Tensor, project: Tensor | None, out: Tensor, means: Tensor | None) -> None:
    if means is None:
        return
    if project is not None:
        raise ValueError("`means` is given with `project`; it is of what the depthwise convolution makes")
    _checks.check_shape("means", means, tuple(out.shape[:2]), "(N, K)")
    _checks.check_dtype("means", means, (torch.float64 if inputs.dtype is torch.float64 else torch.float32,))
    _checks.check_device("means", means, inputs.device, "inputs")
    if not means.is_contiguous():
        raise ValueError(f"`means` has strides {means.stride()}; it takes a dense tensor")


def _checked_settings(depth: Tensor, stride: int, padding: int, activation: str) -> int:
    """The side of the kernel."""
    side = {side * side: side for side in SIDES}.get(depth.shape[1] if depth.dim() == 3 else 0)
    if side is None or depth.shape[2] % 2:
        raise ValueError(f"`depth` has shape {tuple(depth.shape)}; it takes (M / P, k * k, P), k 3, 5 or 7, P even")
    if stride not in STRIDES:
        raise ValueError(f"`stride` is {stride}; it takes 1 or 2")
    if not 0 <= padding < side:
        raise ValueError(f"`padding` is {padding}; it takes 0 to {side - 1}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"`activation` is {activation!r}; it takes one of {', '.join(ACTIVATIONS)}")
    return side


def _check_weights(inputs: Tensor, weights: BottleneckWeights, out: Tensor) -> None:
    """Whole panels that fit each other."""
    panels, _, panel = weights.depth.shape
    middle, half = weights.depth_bias.numel(), panel // 2
    if middle % half or -(-middle // panel) != panels:
        raise ValueError(f"`depth_bias` has {middle} numbers; it takes those of {panels} panels, or half a panel fewer")
    for name in ("expand", "project"):
        if (getattr(weights, name) is None) != (getattr(weights, f"{name}_bias") is None):
            raise ValueError(f"`{name}` and `{name}_bias` come together")
    _check_expand(inputs, weights, middle)
    if weights.project is not None:
        _check_project(inputs, weights, -(-(out.shape[1] if out.dim() == 4 else 0) // panel))
    elif out.dim() != 4 or not middle - half < out.shape[1] <= middle:
        raise ValueError(f"`out` has shape {tuple(out.shape)}; without `project` it takes {middle} channels")


def _check_expand(inputs: Tensor, weights: BottleneckWeights, middle: int) -> None:
    channels, together = inputs.shape[1], side_by_side(inputs.dtype)
    if weights.expand is None:
        if middle != channels:
            raise ValueError(f"`inputs` has {channels} channels; without `expand` it takes {middle}")
        return
    if channels % together:
        raise ValueError(f"`inputs` has {channels} channels; in bfloat16 it takes an even number")
    panels, _, panel = weights.depth.shape
    _checks.check_shape("expand", weights.expand, (panels, channels // together, panel, together), "(M/P, C/T, P, T)")
    assert weights.expand_bias is not None
    _checks.check_shape("expand_bias", weights.expand_bias, (middle,), "(M,)")


def _check_project(inputs: Tensor, weights: BottleneckWeights, results: int) -> None:
    panels, _, panel = weights.depth.shape
    together = side_by_side(inputs.dtype)
    assert weights.project is not None
    assert weights.project_bias is not None
    shape = (results, panels * panel // together, panel, together)
    _checks.check_shape("project", weights.project, shape, "(K/P, M/T, P, T)")
    _checks.check_shape("project_bias", weights.project_bias, (results * panel,), "(K,)")

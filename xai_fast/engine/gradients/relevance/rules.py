"""Relevance as a gradient: functions of torch's whose backward follows AttnLRP while a model's own forward runs.

Whatever is linear, adds up or only moves numbers needs no rule: there the gradient times the input divides the output
among the inputs, and what a bias adds is its own. So it is with a softmax, whose rule is its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from xai_fast.core import autograd
from xai_fast.core.attention import AttentionWatch

# Elementwise, 0 at 0: relevance stays where it is.
_ELEMENTWISE = frozenset(
    ("gelu", "silu", "mish", "tanh", "elu", "selu", "celu", "hardswish", "hardtanh", "relu6", "softsign", "tanhshrink")
)
_PRODUCTS = frozenset(("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "einsum", "mul", "__mul__", "multiply"))
_TIMES = frozenset(("mul", "__mul__", "__rmul__", "multiply"))


class Half(torch.autograd.Function):
    """A factor of a product: half of the relevance of a product of two is each one's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The same numbers."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Half of the gradient."""
        return gradients[0] * 0.5


@contextmanager
def relevance() -> Iterator[None]:
    """Inside, the gradient of whatever the model's own forward computes follows AttnLRP (arXiv:2402.05602).

    Softmax: its gradient (equation 13). Products of two things that depend on the input, attention's among them: half
    to each (proposition 3.3). Normalisations: what they divide by is a constant (proposition 3.4). Elementwise
    functions: f(x) / x in place of the slope (equation 9). The rest as it is.
    """
    with _Rules(), AttentionWatch(take=lambda probabilities: probabilities, keep=lambda own: own.new_empty(0)):
        yield


class _Rules(TorchFunctionMode):
    """Puts the rules into functions as they are called."""

    def __init__(self) -> None:
        super().__init__()
        self._scaled: dict[int, tuple[Tensor, Tensor]] = {}  # by id: a multiple of a tensor, or its sigmoid, and that

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(isinstance(part, Tensor) and part.requires_grad for part in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _NORMALISATIONS:
            return _NORMALISATIONS[name](*args, **kwargs)
        if name in _ELEMENTWISE and not (kwargs.get("inplace") or "out" in kwargs):
            return _in_place_of_slope(func, *args, **kwargs)
        if name in _TIMES and (gated := self._own_gate(*args)) is not None:
            return gated
        if name in _PRODUCTS:
            factors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor) and part.requires_grad]
            if len(factors) == 2:
                halved: Any = tree_map(_halved, (args, kwargs))
                return func(*halved[0], **halved[1])
        result = func(*args, **kwargs)
        self._remember(name, args, result)
        return result

    def _remember(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """What may become x · sigmoid(c x), which is one elementwise function (a quick GELU, SiLU written out)."""
        tensors = [part for part in args if isinstance(part, Tensor)]
        if len(tensors) != len(args) and name in _TIMES and len(tensors) == 1:
            self._scaled[id(result)] = (result, tensors[0])
        elif name == "sigmoid":
            origin = self._scaled.get(id(args[0]), (None, args[0]))[1]
            self._scaled[id(result)] = (result, origin)

    def _own_gate(self, *factors: Any) -> Tensor | None:
        """The x · sigmoid(c x) with the sigmoid as a constant, that is f(x) / x; None where it is no such thing."""
        if len(factors) != 2:
            return None
        for x, gate in (factors, factors[::-1]):
            made = self._scaled.get(id(gate)) if isinstance(gate, Tensor) else None
            if made is not None and made[1] is x and getattr(gate.grad_fn, "name", str)().startswith("Sigmoid"):
                return x * gate.detach()
        return None


def _halved(part: Any) -> Any:
    return Half.apply(part) if isinstance(part, Tensor) and part.requires_grad else part


def _in_place_of_slope(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """f(x) as x times the constant f(x) / x; where x is 0, times the slope there, which that comes to."""
    (x, *others), named = (args, kwargs) if args else ((kwargs["input"],), {**kwargs})
    named.pop("input", None)
    at_zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = autograd.grad(function(at_zero, *others, **named), at_zero)
    with torch.no_grad():
        ratio = (function(x, *others, **named) / x).masked_fill(x == 0, slope.item())
    return x * ratio


def _divided(
    x: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: bool
) -> Tensor:
    """(x - mean) / deviation · weight + bias over `axes`, of which the deviation is a constant."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide - wide.mean(axes, keepdim=True) if centred else wide
    with torch.no_grad():
        deviation = (wide.square().mean(axes, keepdim=True) + eps).sqrt()
    wide = wide / deviation
    wide = wide if weight is None else wide * weight
    return (wide if bias is None else wide + bias).to(x.dtype)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    extents = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    return _divided(input, tuple(range(-len(extents), 0)), weight, bias, eps, centred=True)


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    extents = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    least = torch.finfo(input.dtype).eps if eps is None else eps
    return _divided(input, tuple(range(-len(extents), 0)), weight, None, least, centred=False)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    grouped = _divided(input.unflatten(1, (num_groups, -1)).flatten(2), (2,), None, None, eps, centred=True)
    whole = grouped.view(input.shape)
    per_channel = (-1, *[1] * (input.ndim - 2))
    whole = whole if weight is None else whole * weight.view(per_channel)
    return whole if bias is None else whole + bias.view(per_channel)


def _normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    with torch.no_grad():
        length = torch.linalg.vector_norm(input, p, dim, keepdim=True).clamp_min(eps)
    return input / length


_NORMALISATIONS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "normalize": _normalize,
}

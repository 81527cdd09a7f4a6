"""Nonlinear steps: the multiplier is the difference of outputs over the difference of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from xai_fast.core import autograd, secants
from xai_fast.engine.replay.local.arguments import taken
from xai_fast.engine.replay.local.rule import Scene
from xai_fast.graph.dataflow import written
from xai_fast.graph.steps import Step

from .dependence import Dependence
from .hooked import formula
from .pairs import Pairs
from .rule import Parts, Rule

# Two values of a maximum that are closer count as equal.
_EQUAL = 1e-10

_AXES = {"1d": 1, "2d": 2, "3d": 3}
_MAXIMA: dict[str, Callable[..., Any]] = {
    **{f"max_pool{axes}": getattr(F, f"max_pool{axes}") for axes in _AXES},
    **{f"adaptive_max_pool{axes}": getattr(F, f"adaptive_max_pool{axes}") for axes in _AXES},
}


class Elementwise(Rule):
    """Each element of the output comes from the same element of one tensor: Shrikumar et al.'s rescale rule."""

    def __init__(self, step: Step, source: int, dependence: Dependence) -> None:
        self._step, self._source = in_single(formula(step)), source
        self._writes = bool(written(dependence.graph, step))
        self.keeps = (source,)

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The gradient times the quotient, element by element."""
        (g,) = gradient
        assert g is not None
        x, b = pairs.both(self._source)
        rectifies = self._step.operation == "relu"
        factor = _rectified(x, b) if rectifies else quotient(lambda value: self._run(value, pairs), wide(x), wide(b))
        return {self._source: [(g * pairs.per_score(factor, self._source)).to(g.dtype)]}

    def _run(self, value: Tensor, pairs: Pairs) -> Tensor:
        constants = pairs.constants(len(value) // pairs.batched(self._source))
        read = {number: wide(constants[number]) for number in self._step.reads if number in constants}
        return self._step.run({**read, self._source: value.clone() if self._writes else value})


class Maximum(Rule):
    """Max pooling: the difference of two maxima goes to the position where the larger one lies.

    That position's own difference is at least as large, so the multiplier is at most 1.
    """

    def __init__(self, step: Step, source: int, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self._source, self._pool = source, pool
        self.keeps = (source,)

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The gradient times the quotient, added up at the winners."""
        (g,) = gradient
        assert g is not None
        x, b = pairs.both(self._source)
        (most_x, at_x), (most_b, at_b) = self._pool(x), self._pool(b)
        winner, rise = torch.where(most_x >= most_b, at_x, at_b).flatten(2), wide(most_x - most_b).flatten(2)
        own = wide(x - b).flatten(2).expand(len(winner), -1, -1).gather(2, winner)
        factor = torch.where(own.abs() < _EQUAL, 1.0, rise / own)
        winner, factor = (pairs.per_score(part, self._source) for part in (winner, factor))
        shape = (len(g), *x.shape[1:])
        found = wide(g).new_zeros(shape).flatten(2)
        found.scatter_add_(2, winner.expand(len(g), *winner.shape[1:]), g.flatten(2) * factor)
        return {self._source: [found.view(shape).to(g.dtype)]}


class Softmax(Rule):
    """Softmax or its logarithm over one axis, anywhere: the quotients of the exponentials and of their sum's logarithm.

    Departs from the paper's adjustment, which takes the quotient per class less the mean over classes: that does not
    add up to the difference of the probability (captum#1367), while this does.
    """

    def __init__(self, source: int, dim: int, *, logarithm: bool) -> None:
        self._source, self._dim, self._logarithm = source, dim, logarithm
        self.keeps = (source,)

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The multipliers of the scores over which it is taken."""
        (g,) = gradient
        assert g is not None
        x, b = (wide(part) for part in pairs.both(self._source))
        by_output = wide(g)
        if not self._logarithm:
            rise = secants.exponential(x.log_softmax(self._dim), b.log_softmax(self._dim))
            by_output = by_output * pairs.per_score(rise, self._source)
        shares = pairs.per_score(secants.log_sum_exp(x, b, self._dim), self._source)
        found = by_output - shares * by_output.sum(self._dim, keepdim=True)
        return {self._source: [found.to(pairs.dtype(self._source))]}


def wide(value: Any) -> Any:
    """A tensor in half precision in float32, in which quotients are computed; anything else as it is."""
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def in_single(step: Step) -> Step:
    """The step with what it holds in half precision, beside what it reads, in float32."""
    owner = getattr(step.call, "__self__", None)
    if isinstance(owner, nn.PReLU):
        return replace(step, call=F.prelu, args=(*step.args, wide(owner.weight.detach())), kwargs={})
    args, kwargs = tree_map(wide, (step.args, dict(step.kwargs)))
    return replace(step, args=args, kwargs=kwargs)


def negligible(dtype: torch.dtype) -> float:
    """The difference of inputs below which the derivative may take the place of the quotient.

    Rounding makes the quotient wrong by about eps / difference, and curvature the derivative by about the difference,
    for the functions used in networks, whose scale is one: they meet at the root of eps. In float32 captum's 1e-10 lets
    noise in: between inputs 1e-4 apart the multipliers of a small network of sigmoids err by more than the largest of
    them, and by 1e-5 of it so. In float64 it hardly matters, and captum's threshold is kept.
    """
    return 1e-10 if dtype is torch.float64 else torch.finfo(dtype).eps ** 0.5


def quotient(run: Callable[[Tensor], Tensor], x: Tensor, b: Tensor) -> Tensor:
    """(run(x) - run(b)) / (x - b), and the mean of the derivatives of `run` at x and b where those agree.

    Args:
        run: an elementwise function that may be called under autograd.
        x: (P or 1, ...), not in half precision.
        b: (P or 1, ...).
    """
    difference, of_x, of_b = x - b, run(x), run(b)
    steep = (of_x - of_b).div_(difference)
    agree = difference.abs() < negligible(x.dtype)
    if not agree.any():
        return steep
    # A logarithm near 0 bends on a smaller scale than one: there the quotient, whatever its rounding, is closer.
    at_x, at_b = _derivative(run, x), _derivative(run, b)
    bend, rounding = (at_x - at_b).abs() * difference.abs(), torch.maximum(of_x.abs(), of_b.abs())
    agree &= (difference == 0) | (bend <= torch.finfo(x.dtype).eps * rounding)
    return torch.where(agree, (at_x + at_b) / 2, steep)


def _rectified(x: Tensor, b: Tensor) -> Tensor:
    """The quotient of ReLU, in half the passes over memory.

    With h and l the larger and the smaller of x and b it is relu(h) / (relu(h) + relu(-l)); what is added to the
    divisor makes it 0 where both are 0, as the derivative is there.
    """
    x, b = wide(x), wide(b)
    smallest = torch.finfo(x.dtype).tiny
    high, low = torch.maximum(x, b).clamp_min_(0), torch.minimum(x, b).clamp_max_(-smallest)
    return high.div_(torch.sub(high, low, out=low))


def _derivative(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of `run` at x."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        made = run(leaf)
    return autograd.grad(made, leaf, torch.ones_like(made))[0]


def softmax(step: Step, source: int, dependence: Dependence) -> Rule | None:
    """The rule of a softmax or log-softmax within rows."""
    shape, module = dependence.graph.traits[source].shape, step.module
    if isinstance(module, nn.Softmax2d):
        dim: Any = -3
    elif module is not None:
        dim = getattr(module, "dim", None)
    else:
        dim = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim")
    if shape is None or dependence.graph.traits[step.makes].shape != shape:
        return None
    if dim is None:  # as torch chooses it, with a warning
        dim = 0 if len(shape) in (0, 1, 3) else 1
    if not isinstance(dim, int) or dim % len(shape) == 0:
        return None
    return Softmax(source, dim % len(shape), logarithm=step.operation == "log_softmax")


def maximum(step: Step, source: int, dependence: Dependence) -> Rule | None:
    """The rule of a max pooling that returns values alone."""
    shape, made = dependence.graph.traits[source].shape, dependence.graph.traits[step.makes].shape
    axes = _AXES[step.operation[-2:]]
    names, defaults = ("output_size",), {}
    if not step.operation.startswith("adaptive"):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    found = _settings(step, dependence, names, defaults)
    if found is None or shape is None or made is None or len(shape) != axes + 2:
        return None
    if not found["stride"] if "stride" in found else False:
        found["stride"] = found["kernel_size"]
    pool = _MAXIMA[step.operation]
    return Maximum(step, source, lambda x: pool(x, **found, return_indices=True))


def _settings(
    step: Step, dependence: Dependence, names: Sequence[str], defaults: Mapping[str, Any]
) -> dict[str, Any] | None:
    module = step.module
    if module is not None:
        return {name: getattr(module, name) for name in names} if not module.return_indices else None
    order = ("input", *names, "return_indices")
    found = taken(step, Scene(dependence.graph), order, {**defaults, "return_indices": False})
    return {name: found[name] for name in names} if found is not None and not found["return_indices"] else None

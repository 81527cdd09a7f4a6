"""Nonlinear steps: the multiplier is the difference of outputs over the difference of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_fast.core.graph.steps import Step
from xai_fast.engine.replay.local.arguments import taken
from xai_fast.engine.replay.local.rule import Scene

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
        self._step, self._source = formula(step), source
        self._writes = bool(dependence.graph.writes.get(step.makes))
        self.keeps = (source,)

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The gradient times the quotient, element by element."""
        (g,) = gradient
        assert g is not None
        x, b = pairs.both(self._source)
        rectifies = self._step.operation == "relu"
        factor = _rectified(x, b) if rectifies else quotient(lambda value: self._run(value, pairs), x, b)
        return {self._source: [g * pairs.per_score(factor, self._source)]}

    def _run(self, value: Tensor, pairs: Pairs) -> Tensor:
        constants = pairs.constants(len(value) // pairs.batched(self._source))
        return self._step.run({**constants, self._source: value.clone() if self._writes else value})


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
        winner, rise = torch.where(most_x >= most_b, at_x, at_b).flatten(2), (most_x - most_b).flatten(2)
        own = (x - b).flatten(2).expand(len(winner), -1, -1).gather(2, winner)
        factor = torch.where(own.abs() < _EQUAL, 1.0, rise / own)
        winner, factor = (pairs.per_score(part, self._source) for part in (winner, factor))
        shape = (len(g), *x.shape[1:])
        found = g.new_zeros(shape).flatten(2)
        found.scatter_add_(2, winner.expand(len(g), *winner.shape[1:]), g.flatten(2) * factor)
        return {self._source: [found.view(shape)]}


class Softmax(Rule):
    """Softmax over classes as the last step: the quotient per class, less the mean over classes.

    The paper's adjustment: what all classes gain alike changes no probability. So the contributions of one class
    compare with those of the others, and add up to the difference of the probability only up to that mean.
    """

    def __init__(self, step: Step, source: int) -> None:
        self._step, self._source = formula(step), source
        self.keeps = (source,)

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The centred quotient."""
        (g,) = gradient
        assert g is not None
        x, b = pairs.both(self._source)
        x, b = (part.expand(pairs.count, -1).repeat_interleave(pairs.scores, 0) for part in (x, b))
        constants = pairs.constants(len(x))

        def run(value: Tensor) -> Tensor:
            return self._step.run({**constants, self._source: value})

        steep = g * (run(x) - run(b)) / (x - b)
        multiplier = torch.where((x - b).abs() < negligible(x.dtype), _derivative(run, x, g), steep)
        return {self._source: [multiplier - multiplier.mean(1, keepdim=True)]}


def negligible(dtype: torch.dtype) -> float:
    """The difference of inputs below which the derivative takes the place of the quotient.

    Rounding makes the quotient wrong by about eps / difference, and curvature the derivative by about the difference,
    for the functions used in networks, whose scale is one: they meet at the root of eps. In float32 captum's 1e-10 lets
    noise in: between inputs 1e-4 apart the multipliers of a small network of sigmoids err by more than the largest of
    them, and by 1e-5 of it so. In float64 it hardly matters, and captum's threshold is kept.
    """
    return 1e-10 if dtype is torch.float64 else torch.finfo(dtype).eps ** 0.5


def quotient(run: Callable[[Tensor], Tensor], x: Tensor, b: Tensor) -> Tensor:
    """(run(x) - run(b)) / (x - b), and the derivative of `run` at x where x and b agree.

    Args:
        run: an elementwise function that may be called under autograd.
        x: (P or 1, ...).
        b: (P or 1, ...).
    """
    difference, rise = x - b, run(x) - run(b)
    agree = difference.abs() < negligible(x.dtype)
    steep = rise.div_(difference)
    return torch.where(agree, _derivative(run, x), steep) if agree.any() else steep


def _rectified(x: Tensor, b: Tensor) -> Tensor:
    """The quotient of ReLU, in half the passes over memory.

    With h and l the larger and the smaller of x and b it is relu(h) / (relu(h) + relu(-l)); what is added to the
    divisor makes it 0 where both are 0, as the derivative is there.
    """
    # float16's smallest normal number is not small; there it is a subnormal one.
    smallest = 6e-8 if x.dtype is torch.float16 else torch.finfo(x.dtype).tiny
    high, low = torch.maximum(x, b).clamp_min_(0), torch.minimum(x, b).clamp_max_(-smallest)
    return high.div_(torch.sub(high, low, out=low))


def _derivative(run: Callable[[Tensor], Tensor], x: Tensor, g: Tensor | None = None) -> Tensor:
    """Of `run` at x along `g`; without it, along ones."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        made = run(leaf)
    return torch.autograd.grad(made, leaf, torch.ones_like(made) if g is None else g)[0]


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

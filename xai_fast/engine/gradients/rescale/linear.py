"""Steps that are linear up to a constant: the multiplier is the adjoint, which no value has to be kept for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xai_fast.core import autograd
from xai_fast.engine.replay.local.arguments import per_axis, taken
from xai_fast.engine.replay.local.rule import Scene
from xai_fast.graph.dataflow import written
from xai_fast.graph.fused.public import convolution_gradient
from xai_fast.graph.operation import Gradient
from xai_fast.graph.operations import known_of
from xai_fast.graph.steps import Step, Value

from .dependence import Dependence
from .hooked import formula
from .pairs import Pairs
from .rule import Parts, Rule


def linear_rule(step: Step, dependence: Dependence) -> Rule:
    """The rule of a step that is linear in everything that it reads and that depends on the roots."""
    form = FORMS.get(known_of(step.operation).gradient)
    return (form and form(step, dependence)) or Adjoint(step, dependence)


class Adjoint(Rule):
    """Any linear step, by autograd through that step alone, at zero."""

    def __init__(self, step: Step, dependence: Dependence) -> None:
        self._step, self._changed = formula(step), [n for n in step.reads if n in dependence.changed]
        self._sources = [n for n in self._changed if n in dependence.carried]
        self._writes = bool(written(dependence.graph, step))

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The gradients of the step's sources."""
        given = {number: pairs.stand_in(number, pairs.rows) for number in self._changed}
        leaves = {number: _floats(given[number]) for number in self._sources}
        flat = [leaf.requires_grad_() for parts in leaves.values() for leaf in parts]
        with torch.enable_grad():
            if self._writes:  # nothing may write into a leaf
                given = {n: leaf.clone() if isinstance(leaf, Tensor) else leaf for n, leaf in given.items()}
            made = tree_leaves(self._step.run({**pairs.constants(pairs.rows), **given}))
        reached = [(out, g) for out, g in zip(made, gradient, strict=True) if g is not None]
        found = iter(autograd.grad([out for out, _ in reached], flat, [g for _, g in reached], allow_unused=True))
        return {number: [next(found) for _ in parts] for number, parts in leaves.items()}


class HandedOn(Rule):
    """A module of unknown formula that was seen to return the very tensor that it read."""

    def __init__(self, step: Step) -> None:
        self._source = step.reads[0]

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """What arrives."""
        return {self._source: gradient}

    @staticmethod
    def watched(step: Step, described: str) -> Step:
        """The step; it raises RuntimeError where it returns something else after all."""

        def call(value: Tensor) -> Tensor:
            made = step.call(value)
            if made is not value and (made.data_ptr() != value.data_ptr() or made.stride() != value.stride()):
                raise RuntimeError(f"{described} returned its input when it was captured, and now something else")
            return made

        return replace(step, call=call, args=(Value(step.reads[0]),), kwargs={})


class _Sum(Rule):
    """Two tensors of one shape: both receive what arrives."""

    def __init__(self, sources: Sequence[int]) -> None:
        self._sources = sources

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        return dict.fromkeys(self._sources, gradient)


class _Concatenation(Rule):
    """Tensors side by side: each receives its stretch."""

    def __init__(self, axis: int, stretches: Sequence[tuple[int, int, int]]) -> None:
        self._axis, self._stretches = axis, stretches

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        (g,) = gradient
        assert g is not None
        return {number: [g.narrow(self._axis, start, length)] for number, start, length in self._stretches}


class _Scaling(Rule):
    """Batch normalisation by running statistics: every channel has its factor."""

    def __init__(self, source: int, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        self._source, self._norm = source, norm

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        (g,) = gradient
        norm = self._norm
        assert g is not None
        assert norm.running_var is not None
        factor = (norm.running_var + norm.eps).rsqrt()
        if norm.affine:
            factor = factor * norm.weight.detach()
        return {self._source: [g * factor.to(g.dtype).view(-1, *[1] * (g.ndim - 2))]}


class _Matrix(Rule):
    """A linear layer."""

    def __init__(self, source: int, weight: Tensor) -> None:
        self._source, self._weight = source, weight.detach()

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        (g,) = gradient
        assert g is not None
        return {self._source: [g @ self._weight]}


class _Convolution(Rule):
    """A convolution padded with zeros: only the gradient of its input is computed, and the forward is not repeated."""

    def __init__(self, source: int, found: dict[str, Any], axes: int, channels: tuple[int, ...]) -> None:
        self._source, self._found, self._shape = source, found, channels
        self._geometry = [per_axis(found[name], axes) for name in ("stride", "padding", "dilation")]

    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        (g,) = gradient
        assert g is not None
        stride, padding, dilation = self._geometry
        weight, groups = self._found["weight"].detach(), self._found["groups"]
        found = convolution_gradient(g, weight, self._shape, stride, padding, dilation, groups)
        return {self._source: [found]}


def _sum(step: Step, dependence: Dependence) -> Rule | None:
    traits = dependence.graph.traits
    alike = all(traits[number].shape == traits[step.makes].shape for number in step.reads)
    plain = len(step.args) == 2 and not step.kwargs and len(step.reads) == 2 and not _casts(step, dependence)
    return _Sum([n for n in step.reads if n in dependence.carried]) if alike and plain else None


def _concatenation(step: Step, dependence: Dependence) -> Rule | None:
    scene, traits = Scene(dependence.graph), dependence.graph.traits
    found = taken(step, scene, ("tensors", "dim"), {"dim": 0})
    tensors = step.args[0] if step.args else step.kwargs.get("tensors")
    if found is None or not isinstance(tensors, list | tuple) or _casts(step, dependence):
        return None
    numbers = [tensor.number for tensor in tensors]
    shapes = [traits[number].shape for number in numbers if number in traits]
    made = traits[step.makes].shape
    if len(shapes) < len(numbers) or len({*numbers}) < len(numbers) or made is None:
        return None
    axis, start, stretches = found["dim"] % len(made), 0, []
    for number, shape in zip(numbers, shapes, strict=True):
        if shape is None or len(shape) != len(made):
            return None
        if number in dependence.carried:
            stretches.append((number, start, shape[axis]))
        start += shape[axis]
    return _Concatenation(axis, stretches) if axis else None


def _casts(step: Step, dependence: Dependence) -> bool:
    traits = dependence.graph.traits
    return any(traits[number].dtype != traits[step.makes].dtype for number in step.reads if number in traits)


def _scaling(step: Step, dependence: Dependence) -> Rule | None:
    norm = step.module
    return _Scaling(step.reads[0], norm) if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) else None


def _matrix(step: Step, dependence: Dependence) -> Rule | None:
    if isinstance(step.module, nn.Linear):
        return _Matrix(step.reads[0], step.module.weight)
    found = taken(step, Scene(dependence.graph), ("input", "weight", "bias"), {"bias": None})
    weight = found["weight"] if found is not None else None
    return _Matrix(step.reads[0], weight) if isinstance(weight, Tensor) and weight.ndim == 2 else None


def _convolution(step: Step, dependence: Dependence) -> Rule | None:
    axes, source = int(step.operation[-2]), next(n for n in step.reads if n in dependence.carried)
    names = ("stride", "padding", "dilation", "groups")
    module, shape = step.module, dependence.graph.traits[source].shape
    if module is not None:
        found = {name: getattr(module, name) for name in names} | {"weight": module.weight}
        plain = module.padding_mode == "zeros"
    else:
        defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        found = taken(step, Scene(dependence.graph), ("input", "weight", "bias", *names), defaults)
        plain = found is not None and isinstance(found["weight"], Tensor)
    if found is None or not plain or isinstance(found["padding"], str) or shape is None or len(shape) != axes + 2:
        return None
    return _Convolution(source, found, axes, shape[1:])


def _floats(structure: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(structure) if isinstance(leaf, Tensor)]


FORMS: dict[Gradient, Callable[[Step, Dependence], Rule | None]] = {
    "convolution": _convolution,
    "concatenation": _concatenation,
    "matrix": _matrix,
    "scale": _scaling,
    "sum": _sum,
}

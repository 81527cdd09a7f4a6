"""How large the values of a graph can be, from how large those are that are measured; for `care`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .care import LIMIT, ORDINARY, Care
from .dataflow import memories_written, memory
from .fused import FusedAttention, FusedResidual, FusedStep, gain
from .operation import Kind, Size
from .operations import known_of
from .steps import Graph, Step, Value

_UNKNOWN = math.inf
_SQUARE = 1e18  # beyond this a square overflows


def cared(steps: Sequence[Step], graph: Graph) -> list[Step]:
    """The steps, each fused one with what it has to measure."""
    bounds = _Bounds(graph)
    return [bounds.settled(step) for step in steps]


def sizes(steps: Sequence[Step], graph: Graph) -> dict[int, float]:
    """What steps that were `cared` for take every value to be smaller than; infinite where they take nothing."""
    bounds = _Bounds(graph)
    for step in steps:
        bounds.settled(step)
    return bounds.found


class _Bounds:
    """What is known of the size of values while steps are walked in order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.found: dict[int, float] = {}

    def settled(self, step: Step) -> Step:
        """The step as it is to run; its result is known afterwards."""
        call = step.call
        if isinstance(call, FusedStep):
            care = self._fused(step, call)
            step = replace(step, call=replace(call, care=care))
            found = min(care.bound, _activated(call, care.bound)) if care.bound <= LIMIT else _UNKNOWN
        else:
            found = self._plain(step)
        self.found[step.makes] = found if found <= LIMIT else _UNKNOWN
        into = memories_written(self._graph, step)
        for number in [n for n in self.found if into and memory(self._graph, n) in into]:
            self.found[number] = max(self.found[number], self.found[step.makes])
        return step

    def _fused(self, step: Step, call: Any) -> Care:
        """What the step has to measure: an input whose size is not known, or would make the sums too large."""
        sizes = [self.of(number) for number in step.reads]
        bound = _sum_of(call, sizes)
        if bound <= LIMIT:
            return Care((), bound)
        measured = []
        for position, number in enumerate(step.reads):
            if sizes[position] > ORDINARY:
                measured.append(position)
                sizes[position] = self.found[number] = ORDINARY
        return Care(tuple(measured), _sum_of(call, sizes))

    def of(self, number: int) -> float:
        """The bound of a value; constants are looked at."""
        if number not in self.found:
            fixed = self._graph.fixed.get(number)
            self.found[number] = _largest(fixed) if fixed is not None else _UNKNOWN
        return self.found[number]

    def _plain(self, step: Step) -> float:
        """The bound of what a step of the model's own returns."""
        rule = SIZES[known_of(step.operation).size]
        if rule is None or step.kind is Kind.NUMBER:
            return _UNKNOWN
        sizes = [self.of(number) for number in step.reads if self._tensor(number)]
        if not sizes or max(sizes) > LIMIT:
            return _UNKNOWN
        numbers = [abs(float(leaf)) for leaf in tree_leaves((step.args, dict(step.kwargs))) if _is_number(leaf)]
        found = rule(self, step, sizes, numbers)
        return found if found <= LIMIT else _UNKNOWN  # NaN too

    def no_larger(self, step: Step, sizes: list[float], numbers: list[float]) -> float:
        """No larger than what is read, than the numbers that it is given, or than 6, at which some are cut."""
        attributes = [getattr(step.module, name, 0) for name in ("value", "min_val", "max_val")]
        return max(*sizes, *numbers, *(abs(float(a)) for a in attributes if _is_number(a)), 6.0)

    def summed(self, step: Step, sizes: list[float], numbers: list[float]) -> float:
        """A sum of tensors and numbers; nothing is known of factors given by name."""
        return sum(self._terms(step, numbers)) if not step.kwargs else _UNKNOWN

    def multiplied(self, step: Step, sizes: list[float], numbers: list[float]) -> float:
        """A product of tensors and numbers."""
        return math.prod(self._terms(step, numbers)) if not step.kwargs else _UNKNOWN

    def _terms(self, step: Step, numbers: list[float]) -> list[float]:
        return [*(self.of(arg.number) for arg in step.args if isinstance(arg, Value)), *numbers]

    def average(self, step: Step, sizes: list[float], _: list[float]) -> float:
        """Averages are no larger, unless their divisor is given."""
        own = step.module is not None and not getattr(step.module, "divisor_override", None)
        return max(sizes) if own else _UNKNOWN

    def resized(self, _step: Step, sizes: list[float], _: list[float]) -> float:
        """Cubic weights add up to less than 4."""
        return 4 * max(sizes)

    def mixed(self, _step: Step, sizes: list[float], _: list[float]) -> float:
        """Attention takes means of values; products of queries and keys are added up before."""
        return max(sizes) if max(sizes) <= math.sqrt(_SQUARE) else _UNKNOWN

    def attended(self, step: Step, sizes: list[float], _: list[float]) -> float:
        """Torch's module of attention: two linear layers around it."""
        module = step.module
        if not isinstance(module, nn.MultiheadAttention) or module.in_proj_weight is None or module.bias_k is not None:
            return _UNKNOWN
        inward = gain(module.in_proj_weight, module.in_proj_bias)
        return _attention(inward, gain(module.out_proj.weight, module.out_proj.bias), max(sizes))

    def scaled(self, step: Step, sizes: list[float], _: list[float]) -> float:
        """Batch normalisation by fixed statistics."""
        norm = step.module
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None or norm.training:
            return _UNKNOWN
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var.double() + norm.eps) * (1 if norm.weight is None else norm.weight.double())
        offset = 0.0 if norm.bias is None else _largest(norm.bias)
        return _largest(scale) * (sizes[0] + _largest(norm.running_mean)) + offset

    def normalised(self, step: Step, sizes: list[float], numbers: list[float]) -> float:
        """Of n numbers of mean 0 and variance 1 none is above the square root of n."""
        trait = self._graph.traits.get(step.reads[0])
        divides = getattr(step.module, "eps", 1) == 0 or 0 in numbers
        if max(sizes) > _SQUARE or divides or trait is None or trait.shape is None:
            return _UNKNOWN
        own = [getattr(step.module, name, None) for name in ("weight", "bias")]
        scales = [1.0, *sizes[1:], *(_largest(value) for value in own if value is not None)]
        return (math.sqrt(math.prod(trait.shape)) + 1) * max(scales)

    def weighted(self, step: Step, sizes: list[float], _: list[float]) -> float:
        """A convolution or linear layer that is not fused."""
        weight = getattr(step.module, "weight", None)
        if not isinstance(weight, Tensor):
            return _UNKNOWN
        per_input, offset = gain(weight, getattr(step.module, "bias", None))
        return per_input * sizes[0] + offset

    def _tensor(self, number: int) -> bool:
        trait = self._graph.traits.get(number)
        return trait is None or trait.shape is not None or trait.group >= 0


def _sum_of(call: Any, sizes: Sequence[float]) -> float:
    """What the sums of a fused step stay below, for inputs of these sizes; infinite where there is no bound."""
    if isinstance(call, FusedAttention):
        found = _attention(call.inward.source.gain, call.outward.source.gain, sizes[0])
    else:
        per_input, offset = call.source.gain
        found = per_input * sizes[0] + offset + (sizes[-1] if isinstance(call, FusedResidual) else 0.0)
    return found if found <= LIMIT else _UNKNOWN  # NaN too


def _activated(call: Any, bound: float) -> float:
    """The bound behind the activation of a fused step."""
    activation = getattr(call, "activation", None)
    if activation is None:
        return bound
    if known_of(activation.name).size == "at most one":
        return 1.0
    scale = max([1.0, *(abs(s) for s in activation.scalars)]) if activation.name == "leaky_relu" else 1.0
    return max(map(abs, activation.scalars)) if activation.name == "hardtanh" else scale * bound


def _attention(inward: tuple[float, float], outward: tuple[float, float], size: float) -> float:
    """Self-attention between two linear layers of these gains."""
    inside = inward[0] * size + inward[1]
    return outward[0] * inside + outward[1] if inside <= math.sqrt(_SQUARE) else _UNKNOWN


def _largest(value: Any) -> float:
    """The largest magnitude; infinite where one is not a number, or where there is nothing to look at."""
    if isinstance(value, Tensor) and value.device.type == "cpu" and not value.is_complex():
        found = float(value.detach().double().abs().max()) if value.numel() else 0.0
    elif _is_number(value):
        found = abs(float(value))
    else:
        return _UNKNOWN
    return found if found <= LIMIT else _UNKNOWN


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


SIZES: dict[Size, Callable[[_Bounds, Step, list[float], list[float]], float] | None] = {
    "": None,
    "at most one": lambda *_: 1.0,
    "same": lambda _bounds, _step, sizes, _numbers: max(sizes),
    "no larger": _Bounds.no_larger,
    "sum": _Bounds.summed,
    "product": _Bounds.multiplied,
    "mean": _Bounds.average,
    "resized": _Bounds.resized,
    "attention": _Bounds.mixed,
    "attention module": _Bounds.attended,
    "scaled": _Bounds.scaled,
    "normalised": _Bounds.normalised,
    "weighted": _Bounds.weighted,
}

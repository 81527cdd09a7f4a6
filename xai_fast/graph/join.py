"""Rewrite fused steps once more: depthwise convolutions with the pointwise ones around them in one call.

Also where a squeeze-and-excitation gate stands between. And averages are taken before a pointwise convolution that they
follow, as in DenseNet: then a quarter of the positions is convolved. Only for forwards that run as a whole: gradients
and regions ask for what lies between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .care import Care
from .dataflow import memory, readers
from .fused import (
    NOTHING,
    Activation,
    Bottleneck,
    FusedBottleneck,
    FusedConvolution,
    FusedResidual,
    Implementation,
    PooledConvolution,
)
from .fused.calls import Gate
from .fused.shared import shared
from .operation import Kind
from .steps import Graph, Step, Value

_SQUEEZES = ("mean", "adaptive_avg_pool2d")


def joined(steps: Sequence[Step], graph: Graph, kept: Collection[int], implementation: Implementation) -> list[Step]:
    """The steps, with one in the place of every stretch that `implementation` runs as one.

    Args:
        steps: fused, in order, a whole forward.
        graph: recorded.
        kept: values that are needed afterwards.
        implementation: of fused steps.
    """
    look, found, position = _Look(steps, graph, set(kept)), list[Step](), 0
    while position < len(steps):
        stretch = look.stretch(position)
        joins = (_join(some, graph, implementation) for some in _beginnings(stretch))
        step = next((join for join in joins if join is not None), None) or look.pooled(position)
        found.append(steps[position] if step is None else step[0])
        position += 1 if step is None else step[1]
    return found


@dataclass(frozen=True)
class _Stretch:
    """Convolutions that follow each other, each of which alone reads the one before it.

    Attributes:
        expand, depth, project: their steps, in order; the outer ones may be missing.
        gate: the steps of a gate between the last two, from the mean that it reads to the product.
    """

    expand: Step | None
    depth: Step
    project: Step | None
    gate: tuple[Step, ...] = ()

    @property
    def convolutions(self) -> tuple[Step, ...]:
        """Those that are there."""
        return tuple(step for step in (self.expand, self.depth, self.project) if step is not None)


class _Look:
    """Who reads what in a list of steps."""

    def __init__(self, steps: Sequence[Step], graph: Graph, kept: set[int]) -> None:
        self._steps, self._graph, self._kept = steps, graph, kept
        self._users = readers(steps)

    def stretch(self, start: int) -> _Stretch | None:
        """The longest stretch that begins at a position; None where there is no depthwise convolution in it."""
        at = start
        expand = self._steps[at] if not _is_depthwise(self._steps[at]) else None
        if expand is not None:
            at += 1
            if not (_is_plain(expand) and self._is_read_by(expand.makes, [at])):
                return None
        if at >= len(self._steps) or not _is_depthwise(self._steps[at]):
            return None
        depth, gate = self._steps[at], self._gate(at)
        at += 1 + len(gate)
        project = self._steps[at] if at < len(self._steps) else None
        before = gate[-1].makes if gate else depth.makes
        if project is None or not _may_end(project, before) or not self._is_read_by(before, [at]):
            return _Stretch(expand, depth, None)
        return _Stretch(expand, depth, project, gate)

    def pooled(self, start: int) -> tuple[Step, int] | None:
        """A pointwise convolution and the averages of it, the other way round; None where that is something else."""
        if start + 1 >= len(self._steps):
            return None
        step, pool = self._steps[start : start + 2]
        if not (_is_pointwise(step) and _averages(pool) and self._is_read_by(step.makes, [start + 1])):
            return None
        call, label = PooledConvolution(step, pool), f"{step.label} to {pool.label}"
        return Step(pool.makes, call, (Value(step.reads[0]),), {}, "", Kind.UNKNOWN, label), 2

    def _is_read_by(self, value: int, positions: Sequence[int]) -> bool:
        return value not in self._kept and self._users.get(value, []) == list(positions)

    def _gate(self, depth: int) -> tuple[Step, ...]:
        """The steps behind a depthwise convolution of a gate that scales its channels; none where there is no gate."""
        makes, squeeze = self._steps[depth].makes, depth + 1
        users = self._users.get(makes, [])
        if makes in self._kept or len(users) != 2 or users[0] != squeeze:
            return ()
        stretch = self._steps[squeeze : users[1] + 1]
        squeezed, *between, product = stretch
        made = {squeezed.makes}
        for step in between:
            if not set(step.reads) <= {*made, *self._graph.fixed}:
                return ()
            made.add(step.makes)
        inside = all(set(self._users.get(n, [])) <= set(range(squeeze, users[1] + 1)) for n in made)
        scales = (
            product.operation == "mul" and not product.kwargs and product.args in _products(makes, stretch[-2].makes)
        )
        fits = squeezed.operation in _SQUEEZES and all(self._scales(step, makes) for step in (squeezed, stretch[-2]))
        return tuple(stretch) if between and inside and scales and fits and not made & self._kept else ()

    def _scales(self, step: Step, map_of: int) -> bool:
        """Whether it gives one number per row and channel of a map."""
        found, wide = self._graph.traits.get(step.makes), self._graph.traits.get(map_of)
        if found is None or wide is None or found.shape is None or wide.shape is None or found.batched != 1:
            return False
        return tuple(found.shape) == (*wide.shape[:2], 1, 1)


def _products(left: int, right: int) -> list[tuple[Value, Value]]:
    return [(Value(left), Value(right)), (Value(right), Value(left))]


def _is_plain(step: Step) -> bool:
    return isinstance(step.call, FusedConvolution) and step.call.pads


def _is_depthwise(step: Step) -> bool:
    call = step.call
    return (
        isinstance(call, FusedConvolution)
        and call.pads
        and call.source.weight.shape[1] == 1 < call.source.geometry.groups
    )


def _is_pointwise(step: Step) -> bool:
    """Whether it is a convolution of single positions, one beside the other, with nothing behind it."""
    if not (_is_plain(step) and len(step.reads) == 1):
        return False
    call: Any = step.call
    geometry, sides = call.source.geometry, tuple(call.source.weight.shape[2:])
    return call.activation == NOTHING and (sides, geometry.stride, geometry.padding) == ((1, 1), (1, 1), (0, 0))


def _averages(step: Step) -> bool:
    """Whether it takes means of whole windows, of fewer than there are positions."""
    pool = step.module
    if type(pool) is not nn.AvgPool2d or len(step.args) != 1 or len(step.reads) != 1 or step.kwargs:
        return False
    strides = pool.stride if isinstance(pool.stride, tuple) else (pool.stride, pool.stride)
    whole = pool.padding in (0, (0, 0)) and not pool.ceil_mode and pool.divisor_override is None
    return whole and min(strides) > 1


def _may_end(step: Step, value: int) -> bool:
    """Whether it is a convolution of that value with nothing behind it but perhaps a sum."""
    call = step.call
    if isinstance(call, FusedResidual):
        return call.pads and not call.rectified and step.reads[0] == value and len(step.reads) == 2
    return isinstance(call, FusedConvolution) and call.pads and call.activation == NOTHING and step.reads == (value,)


def _beginnings(stretch: _Stretch | None) -> list[_Stretch]:
    """The stretch, and what is left of it where not all runs as one."""
    if stretch is None:
        return []
    found = [stretch]
    if stretch.project is not None and stretch.expand is not None:
        found.append(_Stretch(stretch.expand, stretch.depth, None))
    return [some for some in found if len(some.convolutions) > 1]


def _join(stretch: _Stretch, graph: Graph, implementation: Implementation) -> tuple[Step, int] | None:
    """The stretch as one step, and how many it stands for; None where that is not to be had."""
    activation = _activation(stretch)
    source = None if activation is None else _shared(stretch, activation, implementation)
    if source is None:
        return None
    steps = (*stretch.convolutions[:-1], *stretch.gate, stretch.convolutions[-1])
    first, end = steps[0], steps[-1]
    last: Any = end.call
    adds = isinstance(last, FusedResidual)
    reads = (first.reads[0], *end.reads[1:]) if adds else (first.reads[0],)
    fixed = {n: graph.fixed[n] for step in steps for n in step.reads if n in graph.fixed}
    calls: list[Any] = [step.call for step in stretch.convolutions]
    gate = Gate(stretch.gate[:-1], fixed, _cares(calls[:-1])[1]) if stretch.gate else None
    # What is convolved is still read while the result is written.
    consumes = adds and last.consumes and memory(graph, reads[0]) != memory(graph, reads[-1])
    call = FusedBottleneck(source, steps, reads, fixed, gate, consumes, *_cares(calls))
    label = f"{first.label} to {end.label}"
    return Step(end.makes, call, tuple(map(Value, reads)), {}, "", Kind.UNKNOWN, label), len(steps)


def _activation(stretch: _Stretch) -> Activation | None:
    """What stands behind the depthwise convolution, and the one before it; None where those are two."""
    calls: list[Any] = [step.call for step in (stretch.expand, stretch.depth) if step is not None]
    found = {call.activation for call in calls}
    return found.pop() if len(found) == 1 else None


def _shared(stretch: _Stretch, activation: Activation, implementation: Implementation) -> Bottleneck | None:
    """One object for the same convolutions."""
    steps: list[Any] = [stretch.expand, stretch.depth, stretch.project]
    expand, depth, project = (None if step is None else step.call.source for step in steps)
    assert depth is not None
    return shared(
        depth.weight,
        depth.bias,
        (implementation.name, "bottleneck", id(expand), id(project), activation),
        lambda: implementation.bottleneck(expand, depth, project, activation),
    )


def _cares(calls: Sequence[Any]) -> tuple[Care | None, float | None]:
    """What is measured of what the stretch reads; and of what it makes, in place of what lies between."""
    cares = [call.care for call in calls if call.care is not None]
    if len(cares) < len(calls):
        return None, None
    measured = ((0,) if 0 in cares[0].measured else ()) + ((1,) if 1 in cares[-1].measured else ())
    between = any(0 in care.measured for care in cares[1:])
    return Care(measured, max(care.bound for care in cares)), cares[-1].bound if between else None

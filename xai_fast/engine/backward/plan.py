"""From a captured graph to the nodes of its backward."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from xai_fast.core.graph.captured import Captured
from xai_fast.core.graph.cut import CutError
from xai_fast.core.graph.fuse import activation_of
from xai_fast.core.graph.onednn import (
    NOTHING,
    RELU,
    FusedConvolution,
    FusedLinear,
    FusedResidual,
    PackedWeight,
)
from xai_fast.core.graph.program import Program
from xai_fast.core.graph.steps import INPUT, Graph, Step
from xai_fast.core.graph.straight import straightened

from .activations import Derivative, derivative_of
from .adjoint import Adjoint, adjoint_of
from .nodes import Affine, Elementwise, LinearAdjoint, Node, Recorded, Sum

Adjoints = dict[tuple[PackedWeight, tuple[int, ...]], Adjoint]


@dataclass(frozen=True)
class Plan:
    """A forward and its backward.

    Attributes:
        prefix: what runs before the layers, without a backward.
        nodes: the rest, in order.
        roots: the values at which the backward ends: the input, or what the layers returned, in their order.
        results: under which name each value of the output is found.
    """

    prefix: Program
    nodes: tuple[Node, ...]
    roots: tuple[int, ...]
    results: dict[int, int]


def plan_of(captured: Captured, layers: Sequence[str], rule: str, adjoints: Adjoints) -> Plan:
    """The plan for gradients at the layers' outputs, or at the input where there are none.

    Args:
        captured: the model.
        layers: their names.
        rule: of its ReLUs, see `rectifier.passed`.
        adjoints: of convolutions that have been packed already; gets new ones.

    Raises:
        CutError: the graph does not show a layer's output, or writes in place tie values together.
        ValueError: a layer runs more than once, or not at all.
    """
    graph = captured.graph
    straight = straightened(graph)
    if straight.tangled:
        raise CutError("a part of the forward writes in place into memory that several values share")
    roots = tuple(_returned(captured, layer) for layer in layers) or (INPUT,)
    results = {number: straight.names.get(number, number) for number in graph.results}
    reached = _reached(straight.steps, roots)
    before = [step for step in straight.steps if step.makes not in reached]
    after = [step for step in straight.steps if step.makes in reached]
    wanted = {*roots, *results.values()} - {INPUT}
    early = {*(n for step in after for n in step.reads), *wanted} - {step.makes for step in after}
    early -= {INPUT, *graph.fixed}
    # Without normalisation the plain layout is more exact, and it matters on which side of a kink a value falls.
    prefix = captured.program(before, {INPUT}, tuple(early), plain=captured.short_sums)
    nodes = _Builder(captured, rule, reached | {*roots}, adjoints).nodes(after, early, wanted)
    return Plan(prefix, tuple(nodes), roots, results)


class _Builder:
    """Makes nodes of steps.

    Args:
        captured: the model.
        rule: of its ReLUs.
        reached: the values that depend on the roots, and these.
        adjoints: see `plan_of`.
    """

    def __init__(self, captured: Captured, rule: str, reached: Collection[int], adjoints: Adjoints) -> None:
        self._captured, self._graph, self._rule, self._adjoints = captured, captured.graph, rule, adjoints
        self._active = {number for number in reached if _differentiable(self._graph, number)}

    def nodes(self, steps: Sequence[Step], given: Collection[int], wanted: Collection[int]) -> list[Node]:
        """The steps, fused where that leaves what the backward needs."""
        kept = {*wanted, *self._told(steps)}
        while True:
            fused = self._captured.fused(steps, {INPUT, *given}, kept)
            nodes = self._grouped(fused, wanted)
            lost = self._lost(fused, nodes)
            if not lost:
                return nodes
            kept |= lost

    def _told(self, steps: Sequence[Step]) -> set[int]:
        """The values from which derivatives of activations are told."""
        told = set()
        for step in steps:
            derivative = self._derivative(step)
            if derivative is not None:
                told.add(step.makes if derivative.from_output else step.reads[0])
            elif activation_of(step) is not None:
                told.add(step.reads[0])  # autograd's, and it has to see the activation
        return told

    def _lost(self, fused: Sequence[Step], nodes: Sequence[Node]) -> set[int]:
        """The values that a fused sum would write over though autograd may remember them."""
        remembered = {
            self._graph.traits[number].group
            for node in nodes
            if isinstance(node, Recorded)
            for number in (*node.reads, *node.makes)
            if number in self._graph.traits
        }
        consumed = [s.reads[1] for s in fused if isinstance(s.call, FusedResidual) and s.call.consumes]
        return {number for number in consumed if self._graph.traits[number].group in remembered}

    def _grouped(self, steps: Sequence[Step], wanted: Collection[int]) -> list[Node]:
        """A node per step that has a formula, and one per stretch of others."""
        later = _read_later(steps, wanted)
        nodes: list[Node] = []
        stretch: list[Step] = []
        for position, step in enumerate(steps):
            node = self._node(step)
            if node is None:
                stretch.append(step)
            if stretch and (node is not None or position == len(steps) - 1):
                nodes.append(self._recorded(stretch, later[position if node is not None else position + 1]))
                stretch = []
            if node is not None:
                nodes.append(node)
        return nodes

    def _recorded(self, steps: Sequence[Step], later: Collection[int]) -> Recorded:
        return Recorded(self._graph, steps, self._active, sorted(later), self._rule)

    def _node(self, step: Step) -> Node | None:
        """The node of a step that has a formula."""
        if not self._active & {*step.reads}:
            return None
        if isinstance(step.call, FusedConvolution | FusedResidual | FusedLinear):
            return self._affine(step)
        derivative = self._derivative(step)
        if derivative is not None:
            return Elementwise(step, derivative)
        return self._sum(step)

    def _affine(self, step: Step) -> Affine | None:
        call = step.call
        derivative, other = None, None
        if isinstance(call, FusedResidual):
            derivative = derivative_of(RELU, self._rule) if call.rectified else None
            other = step.reads[-1] if step.reads[-1] in self._active else None
        elif call.activation != NOTHING:
            derivative = derivative_of(call.activation, self._rule)
            assert derivative is not None
        adjoint = self._adjoint(step) if step.reads[0] in self._active else None
        return Affine(step, adjoint, derivative, other)

    def _adjoint(self, step: Step) -> Adjoint:
        """The adjoint of the affine map, packed once for all plans."""
        call = step.call
        if isinstance(call, FusedLinear):
            return LinearAdjoint(call)
        shape = self._graph.traits[step.reads[0]].shape
        assert shape is not None and isinstance(call, FusedConvolution | FusedResidual)
        key = (call.source, shape[1:])
        if key not in self._adjoints:
            self._adjoints[key] = adjoint_of(*key, short_sums=self._captured.short_sums)
        return self._adjoints[key]

    def _derivative(self, step: Step) -> Derivative | None:
        activation = activation_of(step)
        return derivative_of(activation, self._rule) if activation is not None else None

    def _sum(self, step: Step) -> Sum | None:
        """The node of a plain sum of two tensors of one shape."""
        plain = step.operation == "add" and not step.kwargs and len(step.args) == len(step.reads) == 2
        if not plain:
            return None
        left, right = (self._graph.traits[number] for number in step.reads)
        alike = left.shape is not None and (left.shape, left.batched, left.dtype) == (
            right.shape,
            right.batched,
            right.dtype,
        )
        return Sum(step, tuple(n for n in step.reads if n in self._active)) if alike else None


def _returned(captured: Captured, layer: str) -> int:
    """The value that a layer returns, under its name at that moment."""
    graph, returned = captured.graph, captured.returned_by(layer)
    value, trait = returned.value, graph.traits[returned.value]
    if trait.batched != 1:
        raise CutError(f"layer {layer!r} does not return one entry per row")
    for step in graph.steps:
        if value < step.makes <= returned.until and value in graph.writes.get(step.makes, ()):
            value = step.makes
    return value


def _reached(steps: Sequence[Step], roots: Collection[int]) -> set[int]:
    """The values that depend on the roots."""
    reached: set[int] = set()
    for step in steps:
        if any(number in reached or number in roots for number in step.reads):
            reached.add(step.makes)
    return reached


def _differentiable(graph: Graph, number: int) -> bool:
    """Whether a value is a floating tensor, or holds tensors."""
    trait = graph.traits[number]
    return trait.dtype.is_floating_point if trait.dtype is not None else trait.group != -1


def _read_later(steps: Sequence[Step], wanted: Collection[int]) -> list[set[int]]:
    """Per position, and after the last: the values that are read from there on, or wanted."""
    later = [set(wanted)]
    for step in reversed(steps):
        later.append(later[-1] | {*step.reads})
    return later[::-1]

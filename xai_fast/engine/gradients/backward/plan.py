"""From a captured graph to the nodes of its backward."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, is_dataclass, replace

from torch import nn
from torch.utils._pytree import SUPPORTED_NODES

from xai_fast.graph.captured import Captured
from xai_fast.graph.cut import CutError
from xai_fast.graph.dataflow import NO_MEMORY, at_return, dependents, memory, read_later, readers, straightened
from xai_fast.graph.fuse import activation_of
from xai_fast.graph.fused import NOTHING, RELU, FusedConvolution, FusedLinear, FusedResidual
from xai_fast.graph.operations import known_of
from xai_fast.graph.program import Program
from xai_fast.graph.steps import INPUT, Graph, Step, Value

from .activations import Derivative, derivative_of
from .nodes import Affine, Concatenated, Elementwise, FusedNormalisation, Node, Normalised, Sum
from .recorded import Recorded


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


def plan_of(captured: Captured, layers: Sequence[str], rule: str) -> Plan:
    """The plan for gradients at the layers' outputs, or at the input where there are none.

    Args:
        captured: the model.
        layers: their names.
        rule: of its ReLUs, see `rectifier.passed`.

    Raises:
        CutError: the graph does not show a layer's output, or writes in place tie values together.
        ValueError: a layer runs more than once, or not at all.
    """
    graph = captured.graph
    straight = straightened(graph)
    if straight.tangled:
        raise CutError("a part of the forward writes in place into memory that several values share")
    roots = tuple(_returned(captured, layer) for layer in layers) or (INPUT,)
    results = {number: straight.name(number) for number in graph.results}
    for step in graph.steps:  # an object of the user's own is no nest of tensors, at which gradients could begin
        if step.makes in results and is_dataclass(step.call) and step.call not in SUPPORTED_NODES:
            raise CutError(f"the model returns a {step.label}, whose tensors are not seen")
    reached = dependents(straight.steps, roots)
    before = [step for step in straight.steps if step.makes not in reached]
    after = [step for step in straight.steps if step.makes in reached]
    wanted = {*roots, *results.values()} - {INPUT}
    early = {*(n for step in after for n in step.reads), *wanted} - {step.makes for step in after}
    early -= {INPUT, *graph.fixed}
    # Without normalisation the plain layout is more exact, and it matters on which side of a kink a value falls.
    prefix = captured.program(before, {INPUT}, tuple(early), plain=captured.short_sums)
    nodes = _Builder(captured, rule, roots, reached).nodes(after, early, wanted)
    return Plan(prefix, tuple(nodes), roots, results)


class _Builder:
    """Makes nodes of steps.

    Args:
        captured: the model.
        rule: of its ReLUs.
        roots: the values at which gradients are asked for.
        reached: the values that depend on them.
    """

    def __init__(self, captured: Captured, rule: str, roots: Sequence[int], reached: Collection[int]) -> None:
        self._captured, self._graph, self._rule = captured, captured.graph, rule
        self._roots = roots
        self._active = {number for number in {*reached, *roots} if _differentiable(self._graph, number)}

    def nodes(self, steps: Sequence[Step], given: Collection[int], wanted: Collection[int]) -> list[Node]:
        """The steps, fused where that leaves what the backward needs."""
        kept = {*wanted, *self._told(steps)}
        while True:
            fused = _normalisations_fused(self._captured.fused(steps, {INPUT, *given}, kept), wanted)
            fused = [_exact(step) for step in fused] if self._captured.short_sums else fused
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
            if derivative is not None and derivative.rectifies and self._captured.fuses:
                continue  # its bits are taken down at once
            if derivative is not None:
                told.add(step.makes if derivative.from_output else step.reads[0])
            elif activation_of(step) is not None:
                told.add(step.reads[0])  # autograd's, and it has to see the activation
        return told

    def _lost(self, fused: Sequence[Step], nodes: Sequence[Node]) -> set[int]:
        """The values that a fused sum would write over though autograd may remember them."""
        remembered = {
            memory(self._graph, number)
            for node in nodes
            if isinstance(node, Recorded)
            for number in (*node.reads, *node.makes)
        }
        consumed = [s.reads[1] for s in fused if isinstance(s.call, FusedResidual) and s.call.consumes]
        return {number for number in consumed if memory(self._graph, number) in remembered}

    def _grouped(self, steps: Sequence[Step], wanted: Collection[int]) -> list[Node]:
        """A node per step that has a formula, and one per stretch of others."""
        later = read_later(steps, wanted)
        nodes: list[Node] = []
        stretch: list[Step] = []
        for position, step in enumerate(steps):
            node = self._node(step)
            if node is None:
                stretch.append(step)
            # Autograd would lead a gradient past a root in the middle of a stretch.
            ends = node is not None or position == len(steps) - 1 or step.makes in self._roots
            if stretch and ends:
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
        call = step.call
        if isinstance(call, FusedConvolution | FusedResidual | FusedLinear):
            return self._affine(step, call)
        if isinstance(call, FusedNormalisation):
            return self._normalised(step, call)
        derivative = self._derivative(step)
        if derivative is not None:
            return Elementwise(step, derivative)
        form = known_of(step.operation).gradient
        return self._sum(step) if form == "sum" else self._concatenated(step) if form == "concatenation" else None

    def _affine(self, step: Step, call: FusedConvolution | FusedResidual | FusedLinear) -> Affine:
        derivative, other = None, None
        if isinstance(call, FusedResidual):
            derivative = derivative_of(RELU, self._rule) if call.rectified else None
            other = step.reads[-1] if step.reads[-1] in self._active else None
        elif call.activation != NOTHING:
            derivative = derivative_of(call.activation, self._rule)
            assert derivative is not None
        shape = self._graph.traits[step.reads[0]].shape
        assert shape is not None
        return Affine(step, derivative, shape[1:] if step.reads[0] in self._active else None, other)

    def _derivative(self, step: Step) -> Derivative | None:
        activation = activation_of(step)
        return derivative_of(activation, self._rule) if activation is not None else None

    def _sum(self, step: Step) -> Sum | None:
        """The node of a plain sum of two tensors of one shape."""
        if step.kwargs or not len(step.args) == len(step.reads) == 2:
            return None
        left, right = (self._graph.traits[number] for number in step.reads)
        alike = left.shape is not None and (left.shape, left.batched, left.dtype) == (
            right.shape,
            right.batched,
            right.dtype,
        )
        return Sum(step, None, tuple(n for n in step.reads if n in self._active)) if alike else None

    def _concatenated(self, step: Step) -> Concatenated | None:
        """The node of images side by side along the channels."""
        parts, *rest = step.args or (None,)
        axis = rest[0] if rest else step.kwargs.get("dim", step.kwargs.get("axis"))
        if (
            axis not in (1, -3)
            or not isinstance(parts, list | tuple)
            or not all(isinstance(part, Value) for part in parts)
        ):
            return None
        shapes = [self._graph.traits[part.number].shape for part in parts]
        if any(shape is None or len(shape) != 4 for shape in shapes):
            return None
        channels = tuple(shape[1] for shape in shapes if shape is not None)
        return Concatenated(step, None, tuple(part.number for part in parts), channels)

    def _normalised(self, step: Step, call: FusedNormalisation) -> Normalised:
        shape = self._graph.traits[step.makes].shape
        assert shape is not None
        derivative = derivative_of(call.activation, self._rule) if call.activation != NOTHING else None
        return Normalised(step, derivative, call.scale.view(-1, *[1] * (len(shape) - 2)))


def _exact(step: Step) -> Step:
    """The step with its convolution rounding as little as in the plain layout."""
    if not isinstance(step.call, FusedConvolution | FusedResidual):
        return step
    call = replace(step.call, source=step.call.source.exact())
    return replace(step, call=call)


def _normalisations_fused(steps: Sequence[Step], wanted: Collection[int]) -> list[Step]:
    """The steps with every batch normalisation by fixed statistics fused with the activation that follows it."""
    users = readers(steps)
    gone: set[int] = set()
    found = []
    for step in steps:
        call = step.call
        if step.makes in gone:
            continue
        if (
            known_of(step.operation).gradient == "scale"
            and isinstance(call, nn.modules.batchnorm._BatchNorm)
            and call.running_var is not None
        ):
            fused, makes = FusedNormalisation(call), step.makes
            follower = [steps[position] for position in users.get(step.makes, [])]
            activation = activation_of(follower[0]) if len(follower) == 1 and step.makes not in wanted else None
            if activation is not None and Derivative(activation).from_output:
                fused, makes = FusedNormalisation(call, activation), follower[0].makes
                gone.add(makes)
            step = replace(step, makes=makes, call=fused)
        found.append(step)
    return found


def _returned(captured: Captured, layer: str) -> int:
    """The value that a layer returns, under its name at that moment."""
    returned = captured.returned_by(layer)
    if captured.graph.traits[returned.value].batched != 1:
        raise CutError(f"layer {layer!r} does not return one entry per row")
    return at_return(captured.graph, returned)


def _differentiable(graph: Graph, number: int) -> bool:
    """Whether a value is a floating or complex tensor, or holds tensors."""
    dtype = graph.traits[number].dtype
    return dtype.is_floating_point or dtype.is_complex if dtype is not None else memory(graph, number) != NO_MEMORY

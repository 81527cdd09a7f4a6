"""Rewrite steps: convolutions and linear layers with what follows them in one call, whatever computes that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch import Tensor, nn

from .dataflow import memories_written, memory, readers, sharing
from .fused import (
    Activation,
    Convolution,
    FusedAttention,
    FusedConvolution,
    FusedLinear,
    FusedResidual,
    Geometry,
    Implementation,
    Linear,
)
from .fused.shared import shared
from .magnitudes import cared
from .operation import Kind
from .operations import known_of
from .steps import INPUT, Graph, Step, Value, last_uses


class Fusion:
    """Fuses the steps of one graph; packed weights are shared by everything that has them (see `fused.shared`).

    Args:
        graph: recorded and bound.
        implementation: of fused steps.
        short_sums: whether long sums are cut into stretches, for networks without normalisation.
    """

    def __init__(self, graph: Graph, implementation: Implementation, *, short_sums: bool) -> None:
        self._graph, self._implementation, self._short_sums = graph, implementation, short_sums
        self._convolutions: dict[int, Convolution] = {}
        self._linears: dict[int, Linear] = {}

    def __call__(self, steps: Sequence[Step], given: Collection[int], kept: Collection[int]) -> list[Step]:
        """The steps with every convolution, linear layer and attention that allows it fused.

        Args:
            steps: in order, a part of the graph.
            given: values that exist before, which are not written into.
            kept: values that are needed afterwards, so that they must appear.
        """
        plan = _Plan(steps, set(given), set(kept))
        for position, step in enumerate(steps):
            if position in plan.fused:
                continue
            begins = known_of(step.operation).fusion
            if begins == "convolution" and (source := self._convolution(step)) is not None:
                self._fuse_convolution(plan, position, source)
            elif begins == "linear" and (source := self._linear(step)) is not None:
                self._fuse_linear(plan, position, source)
            elif begins == "attention" and plan.reads_only_first(step):
                attention = self._attention(step)
                if attention is not None:
                    plan.fused[position] = _step(step.makes, attention, (step.args[0],), step.operation, step.label)
        return cared(plan.result(), self._graph) if self._implementation.hides_nan else plan.result()

    def _fuse_linear(self, plan: _Plan, position: int, source: Linear) -> None:
        """Fuses the linear layer with the activation that follows it."""
        step = plan.steps[position]
        follower = plan.only_user(step.makes)
        activation = activation_of(plan.steps[follower]) if follower is not None else None
        makes, linear = step.makes, FusedLinear(source)
        if follower is not None and activation is not None:
            linear = FusedLinear(source, activation)
            makes = plan.steps[follower].makes
            plan.fused[follower] = None
        plan.fused[position] = _step(makes, linear, (step.args[0],), "linear", step.label)

    def _fuse_convolution(self, plan: _Plan, position: int, source: Convolution) -> None:
        """Fuses the convolution with the activation, or with the sum and the ReLU, that follow it."""
        step = plan.steps[position]
        x = step.args[0]
        follower = plan.only_user(step.makes)
        activation = activation_of(plan.steps[follower]) if follower is not None else None
        if follower is None or not (activation is not None or self._fuse_residual(plan, position, follower, source)):
            plan.fused[position] = _step(step.makes, FusedConvolution(source), (x,), "conv2d", step.label)
        elif activation is not None:
            call = FusedConvolution(source, activation)
            plan.fused[position] = _step(plan.steps[follower].makes, call, (x,), "conv2d", step.label)
            plan.fused[follower] = None

    def _fuse_residual(self, plan: _Plan, position: int, follower: int, source: Convolution) -> bool:
        """Fuses the convolution with the sum that follows it, and with a ReLU behind that; False where that is none."""
        step, total = plan.steps[position], plan.steps[follower]
        x = step.args[0]
        other = self._summand(total, step.makes)
        if other is None or self._written_between(plan.steps, position, follower, x.number):
            return False
        rectifier = plan.only_user(total.makes)
        rectified = rectifier is not None and _is_relu(plan.steps[rectifier])
        makes = total.makes
        if rectifier is not None and rectified:
            makes = plan.steps[rectifier].makes
            plan.fused[rectifier] = None
        apart = memory(self._graph, other) != memory(
            self._graph, x.number
        )  # or the sum would overwrite what is convolved
        consumes = apart and self._dies_at(other, follower, plan)
        call = FusedResidual(source, rectified=rectified, consumes=consumes)
        plan.fused[position] = None
        plan.fused[follower] = _step(makes, call, (x, Value(other)), "conv2d", step.label)
        return True

    def _convolution(self, step: Step) -> Convolution | None:
        """The convolution of a step that can be fused."""
        if step.makes in self._convolutions:
            return self._convolutions[step.makes]
        found = _parameters(step, self._graph)
        if found is None or not isinstance(step.args[0], Value):
            return None
        weight, bias, stride, padding, dilation, groups = found
        if weight.ndim != 4 or isinstance(padding, str):
            return None
        geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
        found = shared(
            weight,
            bias,
            (self._implementation.name, geometry, self._short_sums),
            lambda: self._implementation.convolution(weight, bias, geometry, short_sums=self._short_sums),
        )
        return None if found is None else self._convolutions.setdefault(step.makes, found)

    def _linear(self, step: Step) -> Linear | None:
        if step.makes in self._linears:
            return self._linears[step.makes]
        module = step.module
        if isinstance(module, nn.Linear):
            weight, bias = module.weight, module.bias
        else:
            found = _constants(step, self._graph, 2)
            if found is None:
                return None
            weight, bias = found[0], found[1]
        if len(step.reads) - (0 if module is not None else 1 + (bias is not None)) != 1:
            return None
        if weight is None or weight.ndim != 2:
            return None
        linear = self._shared_linear(weight, bias)
        return None if linear is None else self._linears.setdefault(step.makes, linear)

    def _shared_linear(self, weight: Tensor, bias: Tensor | None) -> Linear | None:
        implementation = self._implementation
        return shared(weight, bias, (implementation.name,), lambda: implementation.linear(weight, bias))

    def _attention(self, step: Step) -> FusedAttention | None:
        module = step.module
        if not isinstance(module, nn.MultiheadAttention) or not module.batch_first or module.in_proj_weight is None:
            return None
        plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
        masked = set(step.kwargs) - {"need_weights", "average_attn_weights"} or len(step.args) != 3
        same = len({arg.number if isinstance(arg, Value) else None for arg in step.args}) == 1
        trait = self._graph.traits.get(step.reads[0])
        if not plain or masked or not same or trait is None or trait.shape is None or len(trait.shape) != 3:
            return None
        inward = self._shared_linear(module.in_proj_weight, module.in_proj_bias)
        outward = self._shared_linear(module.out_proj.weight, module.out_proj.bias)
        if inward is None or outward is None:
            return None
        return FusedAttention(FusedLinear(inward), FusedLinear(outward), module.num_heads)

    def _summand(self, step: Step, convolved: int) -> int | None:
        """The other side of a plain sum of two maps of one shape."""
        if step.operation != "add" or step.kwargs or len(step.args) != 2 or len(step.reads) != 2:
            return None
        other = next(number for number in step.reads if number != convolved)
        mine, its = self._graph.traits.get(convolved), self._graph.traits.get(other)
        if mine is None or its is None or mine.shape != its.shape or its.batched != 1 or mine.dtype != its.dtype:
            return None
        return other

    def _written_between(self, steps: Sequence[Step], start: int, end: int, value: int) -> bool:
        """Whether a step between two positions writes into the memory of a value."""
        own = memory(self._graph, value)
        return any(own in memories_written(self._graph, step) for step in steps[start + 1 : end])

    def _dies_at(self, value: int, position: int, plan: _Plan) -> bool:
        """Whether nothing in the memory of a value is needed after a position."""
        untouchable = {*plan.given, *plan.kept, *self._graph.fixed, INPUT}
        return all(
            number not in untouchable and plan.last.get(number, -1) <= position
            for number in sharing(self._graph, value)
        )


class _Plan:
    """What becomes of each step while a stretch of the graph is fused.

    Args:
        steps: the stretch.
        given: values that exist before.
        kept: values that are needed afterwards.

    Attributes:
        fused: by position, the step that takes its place; None where it became part of another one.
        last: the position of the last step that reads each value.
    """

    def __init__(self, steps: Sequence[Step], given: set[int], kept: set[int]) -> None:
        self.steps, self.given, self.kept = steps, given, kept
        self.fused: dict[int, Step | None] = {}
        self.last = last_uses(steps, kept)
        self._users = readers(steps)

    def only_user(self, value: int) -> int | None:
        """The position of the one step, not fused yet, that reads a value nobody keeps."""
        found = self._users.get(value, [])
        return found[0] if len(found) == 1 and value not in self.kept and found[0] not in self.fused else None

    def reads_only_first(self, step: Step) -> bool:
        """Whether of what the step returns only the first part is read."""
        readers = [self.steps[position] for position in self._users.get(step.makes, [])]
        first = all(reader.operation == "getitem" and reader.args[1:] == (0,) for reader in readers)
        return first and step.makes not in self.kept

    def result(self) -> list[Step]:
        """The steps as they will run."""
        found = (self.fused.get(position, step) for position, step in enumerate(self.steps))
        return [step for step in found if step is not None]


def _step(makes: int, call: Callable[..., Any], args: tuple[Any, ...], operation: str, label: str) -> Step:
    return Step(makes, call, args, {}, operation, Kind.UNKNOWN, label)


def _parameters(step: Step, graph: Graph) -> Any:
    """(weight, bias, stride, padding, dilation, groups) of a convolution by module or by function with constants."""
    module = step.module
    if isinstance(module, nn.Conv2d):
        if module.padding_mode != "zeros" or len(step.args) != 1:
            return None
        return module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    found = _constants(step, graph, 2)
    if found is None:
        return None
    names = ("stride", "padding", "dilation", "groups")
    given = dict(zip(names, step.args[3:], strict=False))
    given.update({name: step.kwargs[name] for name in names if name in step.kwargs})
    rest = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **given}
    if any(isinstance(part, Value) for part in rest.values()):
        return None
    return found[0], found[1], *(rest[name] for name in names)


def _constants(step: Step, graph: Graph, count: int) -> list[Tensor | None] | None:
    """Weight and bias of a function call, where they are the model's own constants."""
    found: list[Tensor | None] = []
    for position, name in enumerate(("weight", "bias")[:count]):
        at = position + 1
        arg = step.args[at] if len(step.args) > at else step.kwargs.get(name)
        if isinstance(arg, Value) and isinstance(graph.fixed.get(arg.number), Tensor):
            found.append(graph.fixed[arg.number])
        elif arg is None:
            found.append(None)
        else:
            return None
    return found if found and found[0] is not None else None


def activation_of(step: Step) -> Activation | None:
    """The step as an activation that can be added to a convolution or linear layer."""
    module = step.module
    if len(step.reads) != 1 or (module is None and len([a for a in step.args if not isinstance(a, bool)]) > 1):
        return None
    if known_of(step.operation).gradient not in ("of output", "of input"):
        return None
    extra = {key: value for key, value in step.kwargs.items() if key != "inplace"}
    match step.operation:
        case "gelu":
            approximate = module.approximate if isinstance(module, nn.GELU) else extra.pop("approximate", "none")
            return Activation("gelu", (), str(approximate)) if not extra else None
        case "leaky_relu":
            return Activation("leaky_relu", (module.negative_slope,)) if isinstance(module, nn.LeakyReLU) else None
        case "hardtanh":
            bounds = (module.min_val, module.max_val) if isinstance(module, nn.Hardtanh) else ()
            return Activation("hardtanh", bounds) if bounds else None
        case "relu6":
            return Activation("hardtanh", (0.0, 6.0)) if not extra else None
    return Activation(step.operation) if not extra else None


def _is_relu(step: Step) -> bool:
    activation = activation_of(step)
    return activation is not None and activation.name == "relu"


def _pair(value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) else (value,)
    return (int(pair[0]), int(pair[-1]))

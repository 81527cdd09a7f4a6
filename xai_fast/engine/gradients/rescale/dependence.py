"""What the values of a captured model depend on: the input's content, the layers asked about, or the rows alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch.utils._pytree import register_pytree_node, tree_map

from xai_fast.graph.cut import CutError
from xai_fast.graph.dataflow import at_return, dependents, memory, straightened, written
from xai_fast.graph.operation import Kind
from xai_fast.graph.operations import known_of
from xai_fast.graph.steps import INPUT, Graph, Returned, Step, Value, values_in

from .hooked import with_formula

# What neither has a canonical name nor looks at content: new tensors, and an exported graph's questions about sizes.
_CONTENTLESS = {"new_zeros", "new_ones", "new_full", "new_empty", "sym_size", "sym_numel", "sym_stride"}


class Made:
    """What a class makes of values, in the place of the object: filling in the values makes it."""

    def __init__(self, call: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.call, self.args, self.kwargs = call, args, kwargs


def _made(parts: Iterable[Any], call: type) -> Any:
    args, kwargs = parts
    return call(*args, **kwargs)


register_pytree_node(Made, lambda made: ([made.args, made.kwargs], made.call), _made)


class Dependence:
    """A captured model's steps with writes in place resolved, and what each value depends on.

    Args:
        graph: recorded.
        layers: what the layers returned at which multipliers are asked for; none for the input.

    Attributes:
        graph: the same.
        steps: all of them, in order.
        roots: the values where multipliers are asked for, one per layer, or the input.
        output: what the forward returns, with `Value`s; named tuples and dataclasses are `Made`, and no step.
        results: under which value each value of the output is found after the last step.
        scoring: those of them that scores can be computed from: floating, and reached from the roots.
        changed: values whose content depends on the input's.
        carried: values through which the roots reach something.
        live: the steps by which the roots reach those, in order.

    Raises:
        CutError: memory is written into in a way that the steps alone do not tell.
    """

    def __init__(self, graph: Graph, layers: Iterable[Returned]) -> None:
        straight = straightened(graph)
        self.graph, self._tangled = graph, straight.tangled
        self.steps = [with_formula(step) for step in straight.steps]
        self._makers = {step.makes: step for step in self.steps}
        self.output = self._unpacked(graph.output)
        numbers = dict.fromkeys(value.number for value in values_in(self.output))
        self.results = {number: straight.name(number) for number in numbers}
        self.roots = tuple(self._at_return(layer) for layer in layers) or (INPUT,)
        self.changed = self._reached({INPUT, *self.roots})
        self.carried = self._reached({*self.roots})
        self._refuse_writes()
        self.scoring = [n for n in dict.fromkeys(self.results.values()) if n in self.carried and self._scores(n)]
        self.live = self.leading_to(self.scoring)

    def maker(self, number: int) -> Step | None:
        """The step that makes a value; None for the input and for constants."""
        return self._makers.get(number)

    def described(self, step: Step) -> str:
        """A step in words: what it does, and the innermost module that it is, or ends the forward of, or follows."""
        if step.module is not None:
            return f"{step.operation or type(step.module).__name__} at {step.label!r}"
        name = step.operation or getattr(step.call, "__name__", step.label)
        calls = [(call, path) for path, found in self.graph.anchors.items() for call in found if call is not None]
        ended = [path for call, path in calls if call.value == step.makes]
        if ended:
            return f"{name} at {max(ended, key=len)!r}"
        before = [(call.until, len(path), path) for call, path in calls if call.until < step.makes]
        return f"{name} behind {max(before)[2]!r}" if before else f"{name} at the start of the forward"

    def changing(self, structure: Any) -> list[int]:
        """The changed values in a nest of arguments, one entry per occurrence."""
        return [value.number for value in values_in(structure) if value.number in self.changed]

    def leading_to(self, numbers: Iterable[int]) -> list[Step]:
        """The steps by which the roots reach values, in order."""
        wanted, chosen = {*numbers}, []
        for step in reversed(self.steps):
            carried = self.carried & {*self._contents(step)}
            if step.makes in wanted and carried:
                chosen.append(step)
                wanted |= carried
        return chosen[::-1]

    def unchanged(self) -> list[Step]:
        """The steps that make what is read beside changed values, in order; none that is always the same."""
        wanted = {n for step in self.steps if step.makes in self.changed for n in step.reads} - self.changed
        chosen = []
        for step in reversed(self.steps):
            if step.makes in wanted and step.makes not in self.graph.known:
                chosen.append(step)
                wanted |= set(step.reads) - self.changed
        return chosen[::-1]

    def _unpacked(self, output: Any) -> Any:
        """The output with named tuples and dataclasses, which tracing writes down as calls, as what they hold."""

        def unpack(leaf: Any) -> Any:
            maker = self._makers.get(leaf.number) if isinstance(leaf, Value) else None
            if maker is None or not isinstance(maker.call, type):
                return leaf
            if hasattr(maker.call, "_fields") or dataclasses.is_dataclass(maker.call):
                return Made(maker.call, self._unpacked(maker.args), self._unpacked(dict(maker.kwargs)))
            return leaf

        return tree_map(unpack, output)

    def _scores(self, number: int) -> bool:
        dtype = self.graph.traits[number].dtype
        return dtype is None or dtype.is_floating_point

    def _at_return(self, layer: Returned) -> int:
        if self.graph.traits[layer.value].batched != 1:
            raise CutError("the layer does not return one entry per row")
        return at_return(self.graph, layer)

    def _reached(self, roots: set[int]) -> set[int]:
        return roots | dependents(self.steps, roots, self._contents)

    def _contents(self, step: Step) -> Collection[int]:
        """The values whose content, and not only whose shape or dtype, decides what a step returns."""
        number = self.graph.traits[step.makes].shape is None and step.kind is Kind.NUMBER
        content = known_of(step.operation).content
        if number or content == "none" or (step.module is None and _CONTENTLESS & {*step.label.split(".")}):
            return ()
        return [v.number for v in values_in(step.args[:1])] if content == "first" else step.reads

    def _refuse_writes(self) -> None:
        for step in self.steps:
            if any(number in self.graph.fixed for number in written(self.graph, step)):
                raise CutError(f"{self.described(step)} writes in place into what does not depend on the input")
        for number in self.changed:
            if memory(self.graph, number) in self._tangled:
                step = self.maker(number)
                where = "the input" if step is None else f"what {self.described(step)} returns"
                raise CutError(f"the forward writes in place into a part of {where}")

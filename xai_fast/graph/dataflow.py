"""How the values of a recorded graph hang together: who reads what, what lies in one memory, what is written in place.

Cuts, fusion, local replay, gradients and the rescale rule all ask here. A value's memory is known by a number
(`Trait.group`); what is no tensor has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .steps import INPUT, Graph, Returned, Step, last_uses, reading

NO_MEMORY = -1


# Who reads what


def readers(steps: Sequence[Step]) -> dict[int, list[int]]:
    """The positions of the steps that read each value."""
    found: dict[int, list[int]] = {}
    for position, step in enumerate(steps):
        for number in step.reads:
            found.setdefault(number, []).append(position)
    return found


def read_later(steps: Sequence[Step], wanted: Collection[int]) -> list[set[int]]:
    """Per position, and after the last: the values that are read from there on, or wanted."""
    later = [set(wanted)]
    for step in reversed(steps):
        later.append(later[-1] | {*step.reads})
    return later[::-1]


def dependents(
    steps: Iterable[Step], roots: Collection[int], contents: Callable[[Step], Collection[int]] = lambda step: step.reads
) -> set[int]:
    """The values that depend on the roots, without these where they do not depend on each other.

    Args:
        steps: in order.
        roots: values.
        contents: the values that decide what a step returns.
    """
    found: set[int] = set()
    for step in steps:
        if any(number in found or number in roots for number in contents(step)):
            found.add(step.makes)
    return found


def leading_to(steps: Sequence[Step], wanted: Collection[int], graph: Graph) -> list[Step]:
    """The steps that the wanted values depend on, and those that write in place into what these read, in order."""
    found, chosen = set(wanted), []
    for step in reversed(steps):
        into = memories_written(graph, step)
        if step.makes in found or (into and into & {memory(graph, number) for number in found}):
            chosen.append(step)
            found |= set(step.reads)
    return chosen[::-1]


# What lies in one memory


def memory(graph: Graph, number: int) -> int:
    """The memory in which a value lies; `NO_MEMORY` for what is no tensor, or not known."""
    trait = graph.traits.get(number)
    return trait.group if trait is not None else NO_MEMORY


def sharing(graph: Graph, number: int) -> set[int]:
    """The values that lie in the memory of one, itself included."""
    own = memory(graph, number)
    return {other for other, trait in graph.traits.items() if trait.group == own}


def is_one_tensor(graph: Graph, left: int, right: int) -> bool:
    """Whether two values were one and the same tensor."""
    a, b = graph.traits[left], graph.traits[right]
    return (
        a.group == b.group != NO_MEMORY and a.shape == b.shape is not None and a.place == b.place and a.dtype == b.dtype
    )


def is_number(graph: Graph, number: int) -> bool:
    """Whether a value is no tensor and holds none."""
    trait = graph.traits[number]
    return trait.shape is None and trait.group == NO_MEMORY


# What is written in place


def written(graph: Graph, step: Step) -> tuple[int, ...]:
    """The values into which a step writes in place."""
    return graph.writes.get(step.makes, ())


def memories_written(graph: Graph, step: Step) -> set[int]:
    """The memories into which a step writes in place."""
    return {memory(graph, number) for number in written(graph, step)} - {NO_MEMORY}


def at_return(graph: Graph, returned: Returned) -> int:
    """Under which value the tensor that a layer returned is found, as it was when the layer returned."""
    writers = [
        step.makes
        for step in graph.steps
        if returned.value < step.makes <= returned.until
        and any(is_one_tensor(graph, number, returned.value) for number in written(graph, step))
    ]
    return max(writers, default=returned.value)


def on_copies(step: Step) -> Step:
    """The step, writing into copies of the tensors that it reads."""
    return replace(step, call=_OnCopies(step.call, step.label))


class _OnCopies:
    """A call that writes into copies of its tensors instead of into the tensors."""

    def __init__(self, call: Callable[..., Any], label: str) -> None:
        self._call = call
        self.__name__ = label

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*(arg.clone() if isinstance(arg, Tensor) else arg for arg in args), **kwargs)


@dataclass(frozen=True)
class Straight:
    """A graph's steps without surprises from writes in place: each value is what it was when it was made.

    Who reads a tensor after a write reads what the write returned.

    Attributes:
        steps: in order. A step that writes in place into what others read as well writes into a copy instead.
        names: under which name a value of the original steps is found after the last step, where that differs.
        tangled: memories that are read after a write to a part of them, or by another view.
    """

    steps: list[Step]
    names: dict[int, int]
    tangled: frozenset[int]

    def name(self, number: int) -> int:
        """Under which name a value is found after the last step."""
        return self.names.get(number, number)


def straightened(graph: Graph) -> Straight:
    """The steps of a recorded graph with writes over whole tensors resolved by renaming."""
    names: dict[int, int] = {}
    tangled: set[int] = set()
    steps: list[Step] = []
    existing = {INPUT, *graph.fixed}
    last = last_uses(graph.steps, graph.results)
    for position, original in enumerate(graph.steps):
        step = original
        for number in original.reads:
            if (latest := _latest(names, number)) != number:
                step = reading(step, number, latest)
        needed = {n for n in existing if last.get(n, -1) > position}
        tangled |= _rename(graph, original, needed, names)
        existing.add(original.makes)
        steps.append(step)
    others = {n: len(found) + (n in graph.results) for n, found in readers(graph.steps).items()}
    steps = [on_copies(step) if _overwrites(step, graph, tangled, others) else step for step in steps]
    return Straight(steps, {number: _latest(names, number) for number in names}, frozenset(tangled))


def _rename(graph: Graph, step: Step, needed: set[int], names: dict[int, int]) -> set[int]:
    """Names what a step writes over after what it returns; the memories for which that would not be true."""
    tangled: set[int] = set()
    for number in written(graph, step):
        for member in sharing(graph, number) & needed:
            latest = _latest(names, member)
            if not is_one_tensor(graph, member, step.makes):
                tangled.add(memory(graph, number))
            elif latest != step.makes:
                names[latest] = step.makes
    return tangled


def _overwrites(step: Step, graph: Graph, tangled: set[int], readers: dict[int, int]) -> bool:
    """Whether a step writes in place into what others read, where nothing relies on memory being shared."""
    apart = not memories_written(graph, step) & tangled
    return apart and any(readers.get(number, 0) > 1 for number in written(graph, step))


def _latest(names: dict[int, int], number: int) -> int:
    while number in names:
        number = names[number]
    return number

"""Steps without surprises from writes in place: who reads a tensor after a write reads what the write returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .fold import reading
from .steps import INPUT, Graph, Step


@dataclass(frozen=True)
class Straight:
    """A graph's steps, each value of which is what it was when it was made.

    Attributes:
        steps: in order. A step that writes in place into what others read as well writes into a copy instead.
        names: under which name a value of the original steps is found after the last step, where that differs.
        tangled: groups of memory (`Trait.group`) that are read after a write to a part of them, or by another view.
    """

    steps: list[Step]
    names: dict[int, int]
    tangled: frozenset[int]


def straightened(graph: Graph) -> Straight:
    """The steps of a recorded graph with writes over whole tensors resolved by renaming."""
    names: dict[int, int] = {}
    tangled: set[int] = set()
    steps: list[Step] = []
    existing = {INPUT, *graph.fixed}
    last = {number: position for position, step in enumerate(graph.steps) for number in step.reads}
    last.update(dict.fromkeys(graph.results, len(graph.steps)))
    readers = {number: len(users) + (number in graph.results) for number, users in graph.users().items()}
    for position, original in enumerate(graph.steps):
        step = original
        for number in original.reads:
            if (latest := _latest(names, number)) != number:
                step = reading(step, number, latest)
        needed = {n for n in existing if last.get(n, -1) > position}
        tangled |= _rename(graph, original, needed, names)
        existing.add(original.makes)
        steps.append(step)
    steps = [on_copies(step) if _overwrites(step, graph, tangled, readers) else step for step in steps]
    return Straight(steps, {number: _latest(names, number) for number in names}, frozenset(tangled))


def _rename(graph: Graph, step: Step, needed: set[int], names: dict[int, int]) -> set[int]:
    """Names what a step writes over after what it returns; the groups of memory for which that would not be true."""
    tangled = set()
    for number in graph.writes.get(step.makes, ()):
        for member in _sharing(graph, number) & needed:
            latest = _latest(names, member)
            if not _one_tensor(graph, member, step.makes):
                tangled.add(graph.traits[number].group)
            elif latest != step.makes:
                names[latest] = step.makes
    return tangled


def _overwrites(step: Step, graph: Graph, tangled: set[int], readers: dict[int, int]) -> bool:
    """Whether a step writes in place into what others read, where nothing relies on memory being shared."""
    written = graph.writes.get(step.makes, ())
    apart = not any(graph.traits[number].group in tangled for number in written)
    return apart and any(readers.get(number, 0) > 1 for number in written)


def on_copies(step: Step) -> Step:
    """The step, writing into copies of the tensors that it reads."""
    call = _OnCopies(step.call, step)
    return Step(step.makes, call, step.args, step.kwargs, step.operation, step.kind, step.label)


class _OnCopies:
    """A call that writes into copies of its tensors instead of into the tensors."""

    def __init__(self, call: Callable[..., Any], step: Step) -> None:
        self._call = call
        self.__name__ = step.label

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*(arg.clone() if isinstance(arg, Tensor) else arg for arg in args), **kwargs)


def _latest(names: dict[int, int], number: int) -> int:
    while number in names:
        number = names[number]
    return number


def _sharing(graph: Graph, number: int) -> set[int]:
    group = graph.traits[number].group
    return {other for other, trait in graph.traits.items() if trait.group == group}


def _one_tensor(graph: Graph, left: int, right: int) -> bool:
    """Whether two values were one and the same tensor."""
    a, b = graph.traits[left], graph.traits[right]
    return a.group == b.group != -1 and a.shape == b.shape is not None and a.place == b.place and a.dtype == b.dtype

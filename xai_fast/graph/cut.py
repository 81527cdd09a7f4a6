"""Cut a captured model at layers: what runs before them, what runs after, and what crosses beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dataflow import dependents, is_number, leading_to, memories_written, memory, sharing, written
from .steps import INPUT, Graph, Returned, Step


class CutError(Exception):
    """A graph cannot be cut at a layer; the message says why."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A graph in two parts.

    Attributes:
        roots: values that replace themselves: what the layers returned.
        before: steps that depend on no root.
        after: steps that depend on a root, and the numbers (sizes, lengths) that they read.
        crossing: values from `before`, or the input, that `after` reads beside the roots.
        written: given values into whose memory `after` writes, so that it must be handed copies.
    """

    roots: tuple[int, ...]
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    crossing: tuple[int, ...]
    written: frozenset[int]


def cut(graph: Graph, layers: Iterable[Returned]) -> Cut:
    """Cuts a recorded graph at what layers returned.

    Raises:
        CutError: a value that crosses has no rows, or writing in place ties the parts together.
    """
    until = {layer.value: layer.until for layer in layers}
    waiting = dict(until)
    roots: list[int] = []
    dirty: set[int] = set()
    after: list[Step] = []
    before: list[Step] = []
    existing = {INPUT, *graph.fixed}
    for step in graph.steps:
        for value in [value for value, end in waiting.items() if step.makes > end]:
            del waiting[value]
            if value not in dirty:
                roots.append(value)
                dirty.add(value)
        existing.add(step.makes)
        if dirty & set(step.reads):
            after.append(step)
            dirty.add(step.makes)
            for number in written(graph, step):
                dirty |= sharing(graph, number) & existing
        else:
            before.append(step)
    roots += [value for value in waiting if value not in dirty]
    _refuse_disorder(graph, before, after, {root: until[root] for root in roots})
    after = _with_numbers(graph, before, after)
    made = {step.makes for step in after}
    read = {number for step in after for number in step.reads} | set(graph.results)
    crossing = tuple(sorted(read - made - set(roots) - set(graph.fixed)))
    for number in crossing:
        _refuse_rowless(graph, number)
    needed = leading_to(before, {*crossing, *roots}, graph)
    return Cut(tuple(roots), tuple(needed), tuple(after), crossing, _written(graph, after, {*crossing, *roots}))


def expanded(graph: Graph, number: int, value: Any, row: int, rows: int) -> Any:
    """One row of a value that crosses, as that many equal rows; a view where that is possible."""
    trait = graph.traits[number]
    if not isinstance(value, Tensor) or not trait.batched:
        return value
    own = value[row * trait.batched : (row + 1) * trait.batched]
    if trait.batched == 1:
        return own.expand(rows, *own.shape[1:])
    return own[None].expand(rows, *own.shape).reshape(rows * trait.batched, *own.shape[1:])


def handed(cut: Cut, values: Mapping[int, Any]) -> dict[int, Any]:
    """The values to hand to `after`, with copies of what it writes into."""
    return {n: _copy(v) if n in cut.written else v for n, v in values.items()}


def _copy(value: Any) -> Any:
    # An expanded view has rows that lie on top of each other; only a copy of its own layout can be written into.
    return value.clone(memory_format=torch.preserve_format).contiguous() if isinstance(value, Tensor) else value


def _refuse_disorder(graph: Graph, before: list[Step], after: list[Step], roots: dict[int, int]) -> None:
    """`before` runs first as a whole, so it may not overwrite a layer's output, or what `after` was to read earlier."""
    position = {id(step): index for index, step in enumerate(graph.steps)}
    for step in before:
        for number in written(graph, step):
            shared = sharing(graph, number)
            if any(root in shared and step.makes > end for root, end in roots.items()):
                raise CutError(f"{step.label} writes in place into what the layer returned")
            for reader in after:
                if position[id(reader)] < position[id(step)] and shared & set(reader.reads):
                    raise CutError(f"{step.label} writes in place into what {reader.label} reads before")


def _with_numbers(graph: Graph, before: list[Step], after: list[Step]) -> list[Step]:
    """`after` with the steps that compute sizes it reads, because those depend on the number of rows."""
    makers = {step.makes: step for step in before}
    needed: set[int] = set()
    open_ends = [number for step in after for number in step.reads]
    while open_ends:
        number = open_ends.pop()
        varies = is_number(graph, number) and graph.traits[number].batched is None
        if varies and number in makers and number not in needed:
            needed.add(number)
            open_ends += makers[number].reads
    chosen = {id(makers[number]) for number in needed} | {id(step) for step in after}
    return [step for step in graph.steps if id(step) in chosen]


def _refuse_rowless(graph: Graph, number: int) -> None:
    trait = graph.traits[number]
    if trait.batched is None:
        step = graph.step_of(number)
        raise CutError(f"rows cannot be told apart in what {step.label if step else 'the input'} returns")
    if trait.batched == 0 and trait.shape is not None and _depends_on_input(graph, number):
        step = graph.step_of(number)
        raise CutError(f"{step.label if step else 'the input'} mixes the rows of a batch")


def _depends_on_input(graph: Graph, number: int) -> bool:
    reads = dependents(graph.steps, {INPUT}, lambda step: () if is_number(graph, step.makes) else step.reads)
    return number == INPUT or number in reads


def _written(graph: Graph, after: list[Step], given: Collection[int]) -> frozenset[int]:
    touched = {group for step in after for group in memories_written(graph, step)}
    into = [number for number in given if memory(graph, number) in touched]
    for number in into:
        if len(sharing(graph, number) & set(given)) > 1:
            raise CutError("a part of the forward writes in place into memory that two values share")
    return frozenset(into)

"""Run a program in stages of as many rows as keep every intermediate small.

glibc maps blocks over 32 MiB afresh for every call and gives them back, so that a batch whose early maps are larger
spends its time on page faults. Where only one value is alive the rows can be regrouped: few for the large maps in the
beginning, all of them later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .program import Program
from .steps import INPUT, Graph, Step, last_uses

_LARGEST = 32 << 20  # bytes of one intermediate
_MANY = 8  # rows beyond which it does not matter how many more would fit


@dataclass(frozen=True)
class Stage:
    """A stretch of the program between two values that stand alone: `reads` becomes `makes`, `rows` at a time."""

    program: Program
    reads: int
    makes: int
    rows: int

    def run(self, value: Tensor) -> Tensor:
        """All rows of the value, in near-equal parts."""
        parts = -(-len(value) // self.rows)
        size = -(-len(value) // parts)
        made = [self.program.run({self.reads: part})[self.makes] for part in value.split(size)]
        return made[0] if len(made) == 1 else torch.cat(made)


def stages(graph: Graph, steps: Sequence[Step], make: Callable[[Sequence[Step], int], Program]) -> list[Stage]:
    """The steps in stages; empty where the output is not one tensor with a row per row, or nothing would be gained.

    Args:
        graph: recorded.
        steps: the whole forward.
        make: from some of the steps and the value wanted of them to a program.
    """
    if len(graph.results) != 1:
        return []
    alone = [(-1, INPUT), *_alone(graph, steps)]
    if alone[-1][0] != len(steps) - 1:
        return []
    fits = [_fitting(graph, steps[start + 1 : end + 1], reads) for (start, reads), (end, _) in pairwise(alone)]
    found: list[tuple[int, int, int, int]] = []  # from step, to step, reads, rows
    for position, ((start, reads), (end, _)) in enumerate(pairwise(alone)):
        # Rows are only ever put together again, not taken apart: that would copy more than it saves.
        rows = min(fits[position:])
        if found and found[-1][3] == rows:
            found[-1] = (found[-1][0], end, found[-1][2], rows)
        else:
            found.append((start + 1, end, reads, rows))
    if all(rows == _MANY for *_, rows in found):
        return []
    return [
        Stage(make(steps[start : end + 1], steps[end].makes), reads, steps[end].makes, rows)
        for start, end, reads, rows in found
    ]


def _fitting(graph: Graph, steps: Sequence[Step], reads: int) -> int:
    """How many rows keep every intermediate of these steps small."""
    largest = max([graph.traits[reads].size, *(graph.traits[step.makes].size for step in steps)])
    return min(_MANY, max(1, _LARGEST // max(largest, 1)))


def _alone(graph: Graph, steps: Sequence[Step]) -> list[tuple[int, int]]:
    """(position, value) after which only that value is still needed."""
    last = last_uses(steps, graph.results)
    alive: set[int] = {INPUT}
    found = []
    for position, step in enumerate(steps):
        alive.add(step.makes)
        alive = {n for n in alive if last.get(n, -1) > position}
        if alive == {step.makes} and graph.traits[step.makes].batched == 1:
            found.append((position, step.makes))
    return found

"""Run a part of a captured model: given some values, compute others, and let everything else go when it is used up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from . import care
from .steps import Graph, Step, last_uses


class Runs(Protocol):
    """A program, or what runs it another way."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """What it runs."""
        ...

    @property
    def reads(self) -> tuple[int, ...]:
        """The values that it needs."""
        ...

    @property
    def grown(self) -> int:
        """How often it came to hold more memory."""
        ...

    def run(self, given: Mapping[int, Any]) -> dict[int, Any]:
        """The wanted values, from the given ones."""
        ...


class Program:
    """Steps in order, with what may be dropped after each.

    Args:
        graph: where constants come from.
        steps: the part that runs.
        wanted: the values that `run` returns.
        whole: whether its steps were fused together, so that they take no others' word for what values are like.
    """

    def __init__(self, graph: Graph, steps: Sequence[Step], wanted: Collection[int], *, whole: bool = False) -> None:
        self._whole = whole
        self._fixed, self._wanted = graph.fixed, tuple(wanted)
        self.steps = tuple(steps)
        last = last_uses(steps, (*wanted, *graph.fixed))
        made = {step.makes for step in steps}
        self._dead = [
            tuple(n for n in {*step.reads, step.makes} if last.get(n, -1) <= position)
            for position, step in enumerate(steps)
        ]
        self.reads = tuple(
            dict.fromkeys(n for step in steps for n in step.reads if n not in made and n not in graph.fixed)
        )

    grown = 0  # see `Runs`

    def run(self, given: Mapping[int, Any]) -> dict[int, Any]:
        """The wanted values, from the given ones."""
        if not self._whole:
            return self._run(given)
        with care.run():
            return self._run(given)

    def _run(self, given: Mapping[int, Any]) -> dict[int, Any]:
        values = {**self._fixed, **given}
        for step, dead in zip(self.steps, self._dead, strict=True):
            values[step.makes] = step.run(values)
            for number in dead:
                values.pop(number, None)
        return {number: values[number] for number in self._wanted}

"""What a change inside a box does to every value of a captured model: nothing, a box of its own, or everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from xai_fast.graph.captured import Captured
from xai_fast.graph.dataflow import is_number, leading_to, memory, straightened, written
from xai_fast.graph.steps import INPUT, Step

from .boxes import Grid
from .rule import Rule, Scene
from .rules import rule_of
from .views import Reshaped


class NotLocalError(Exception):
    """A model cannot be re-run region by region; the message says why."""


class Regions:
    """A captured model, every step with the rule by which a box passes it, or without where none is known.

    Args:
        captured: recorded on inputs of the shape that will come.

    Attributes:
        scene: what is constant, and where the positions of values with boxes lie.
        steps: that depend on the input, in order, writes in place resolved.
        rules: of the steps that boxes pass, by what these make.

    Raises:
        NotLocalError: not even the first step lets a box pass, or a constant is written into.
    """

    def __init__(self, captured: Captured) -> None:
        graph = captured.graph
        self.captured, self.scene = captured, Scene(graph)
        self.steps: list[Step] = []
        self.rules: dict[int, Rule] = {}
        self._straight = straightened(graph)
        shape = graph.traits[INPUT].shape
        assert shape is not None
        axes = len(shape) - 2
        self._dense: set[int] = set()
        self._varying: set[int] = set()  # numbers that depend on how many rows there are
        if memory(graph, INPUT) in self._straight.tangled:
            raise NotLocalError("a part of the forward writes in place into a part of its input")
        self.scene.grids[INPUT] = Grid(tuple(range(-axes, 0)), shape[2:])
        for step in self._straight.steps:
            self._classify(step)
        if not self.rules:
            first = self.steps[0].label if self.steps else "the forward"
            raise NotLocalError(f"{first} makes every position depend on every other")

    @property
    def results(self) -> tuple[int, ...]:
        """The values that the output is made of, under their last names."""
        return tuple(dict.fromkeys(self.name(number) for number in self.captured.graph.results))

    def name(self, number: int) -> int:
        """Under which name a value of the output is found."""
        return self._straight.name(number)

    def _classify(self, step: Step) -> None:
        """Finds out what the step makes of the changes that reach it."""
        graph, scene = self.captured.graph, self.scene
        if step.makes in scene.fixed and not written(graph, step):
            return  # a number that is always the same
        changed = [n for n in step.reads if n in scene.grids or n in self._dense]
        varying = [n for n in step.reads if n in self._varying]
        if not changed and not varying:
            self._constant(step)
            return
        self.steps.append(step)
        if is_number(graph, step.makes) and not written(graph, step):
            self._varying.add(step.makes)
            return
        rule = self._rule(step) if not any(n in self._dense for n in changed) else None
        if rule is None or (varying and not isinstance(rule, Reshaped)):
            self._dense.add(step.makes)
            self._refuse_constants(step)
            return
        self.rules[step.makes] = rule
        scene.grids[step.makes] = rule.grid

    def _rule(self, step: Step) -> Rule | None:
        graph = self.captured.graph
        values = [n for n in (step.makes, *step.reads) if n not in self.scene.fixed]
        if any(memory(graph, n) in self._straight.tangled for n in values):
            return None
        trait = graph.traits[step.makes]
        if trait.shape is not None and trait.batched != 1:
            return None
        return rule_of(step, self.scene)

    def _constant(self, step: Step) -> None:
        """What depends on no input is computed once."""
        with torch.no_grad():
            self.scene.fixed[step.makes] = step.run(self.scene.fixed)

    def _refuse_constants(self, step: Step) -> None:
        for number in written(self.captured.graph, step):
            if number in self.scene.fixed:
                raise NotLocalError(f"{step.label} writes in place into what does not depend on the input")

    def divide(self, until: int) -> Division:
        """The steps in two: those that run region by region, of the first `until` ones, and all others.

        Raises:
            NotLocalError: no step is left to the regions.
        """
        graph = self.captured.graph
        first = self.steps[:until]
        chosen = {step.makes for step in first if step.makes in self.rules}
        while True:
            made = chosen | {INPUT}
            rest = leading_to([step for step in self.steps if step.makes not in made], self.results, graph)
            read = {n for step in rest if step.makes not in self._varying for n in step.reads} | set(self.results)
            frontier = made & read
            # A tuple has no map that it could be pasted into: who makes it joins the rest.
            tuples = {number for number in frontier if self.scene.shape(number) is None}
            if not tuples:
                break
            chosen -= tuples
        numbers = {n for step in rest if step.makes in self._varying for n in step.reads if n in made}
        local = leading_to([step for step in first if step.makes in chosen], frontier, graph)
        if not local:
            raise NotLocalError("nothing is left to re-run region by region")
        clean = leading_to([s for s in first if s.makes in chosen | self._varying], [s.makes for s in local], graph)
        return Division(
            tuple(local), tuple(clean), tuple(rest), tuple(sorted(frontier)), tuple(sorted(numbers - frontier))
        )


@dataclass(frozen=True)
class Division:
    """A model's steps in two.

    Attributes:
        local: steps that run on regions.
        clean: the same with the numbers that they read, for the clean inputs.
        rest: steps that run on whole maps afterwards.
        frontier: values that the rest reads, or that are returned, and that regions are pasted into.
        shapes: values of which the rest reads the shape alone.
    """

    local: tuple[Step, ...]
    clean: tuple[Step, ...]
    rest: tuple[Step, ...]
    frontier: tuple[int, ...]
    shapes: tuple[int, ...]


def rules_of(steps: Sequence[Step], regions: Regions) -> dict[int, Rule] | None:
    """The rules of steps that were rewritten (fused) after `regions` knew them; None where one has none."""
    scene = Scene(regions.captured.graph)
    scene.fixed = regions.scene.fixed
    scene.grids[INPUT] = regions.scene.grids[INPUT]
    found = {}
    for step in steps:
        rule = rule_of(step, scene)
        if rule is None:
            return None
        found[step.makes] = rule
        scene.grids[step.makes] = rule.grid
    return found

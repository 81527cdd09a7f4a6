"""One division of a captured model, ready to run: regions first, then what follows on whole maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.graph import care
from xai_fast.graph.dataflow import on_copies, written
from xai_fast.graph.magnitudes import sizes
from xai_fast.graph.steps import INPUT, Step, filled, last_uses

from .boxes import Boxes, Grid, Spans, covering
from .differences import Differences
from .regions import Division, Regions, rules_of
from .rows import Move, Rows, Source, empty_like, gathered
from .rule import Border, Rule

_CAREFUL = -1  # among kept values: whether some are larger than fused steps take them to be


class Replay:
    """A captured model divided into regions and whole maps.

    Args:
        regions: the model.
        division: of its steps.
        half: the dtype in which regions carry their difference to the clean input; None for regions as they are.

    Attributes:
        kept: the values whose clean contents regions are gathered from.
        row_bytes: what those take for one input.
        whole_bytes: the largest intermediate of one row on whole maps.
    """

    def __init__(self, regions: Regions, division: Division, half: torch.dtype | None = None) -> None:
        captured, graph = regions.captured, regions.captured.graph
        self._regions, self.division, self.half = regions, division, half
        steps = captured.fused(division.local, {INPUT}, division.frontier) if half is None else division.local
        rules = rules_of(steps, regions)
        if rules is None:
            steps, rules = division.local, {step.makes: regions.rules[step.makes] for step in division.local}
        self.steps: Sequence[Step] = steps
        self._sizes = sizes(steps, graph) if captured.hides_nan else {}
        self.rules: Mapping[int, Rule] = rules
        reading = (rule for rule in rules.values() if not (rule.stays if half is None else rule.linear))
        moving = {n for rule in reading for n in rule.sources}
        self.kept = tuple(sorted((moving | set(division.frontier)) - set(regions.scene.fixed) - {INPUT}))
        clean = [
            on_copies(step) if written(graph, step) and set(step.reads) & set(self.kept) else step
            for step in division.clean
        ]
        self._clean = captured.program(clean, {INPUT}, self.kept, plain=captured.short_sums)
        given = {*division.frontier, *division.shapes}
        results = [n for n in regions.results if n not in given]
        self._rest = captured.program(division.rest, given, results)
        read = {*self._clean.reads, *self._rest.reads} - graph.fixed.keys()
        self._constants = {n: value for n, value in regions.scene.fixed.items() if n in read}
        self._last = last_uses(steps, division.frontier)
        self.row_bytes = sum(graph.traits[n].size for n in (*self.kept, INPUT))
        whole = [graph.traits[step.makes].size for step in self._rest.steps]
        self.whole_bytes = max([*whole, sum(graph.traits[n].size for n in division.frontier) // 2, 1])

    def spans(self, changed: Spans) -> dict[int, Spans]:
        """What may differ in every value, from what differs in the input (R, A, 2)."""
        spans = {INPUT: changed}
        for step in self.steps:
            rule = self.rules[step.makes]
            spans[step.makes] = rule.reach([spans[n] for n in rule.sources if n in spans])
        return spans

    def group(self, spans: Mapping[int, Spans], index: np.ndarray) -> Group:
        """What rows run together, from the spans of all and the numbers of these."""
        grid = self._regions.scene.grids[INPUT]
        boxes = {INPUT: covering(spans[INPUT][index], grid.extents)}
        moves = []
        for position, step in enumerate(self.steps):
            rule = self.rules[step.makes]
            own = rule.place(spans[step.makes][index], [boxes[n] for n in rule.sources if n in boxes])
            sources = [
                self._source(rule, n, needed, boxes.get(n))
                for n, needed in zip(rule.sources, rule.needs(own), strict=True)
            ]
            boxes[step.makes] = own
            dead = tuple(n for n in {*step.reads, step.makes} if self._last.get(n, -1) <= position)
            moves.append(Move(step, rule, tuple(sources), rule.extras(own), dead))
        return Group(boxes[INPUT], tuple(moves), {n: boxes[n] for n in self.division.frontier})

    def _source(self, rule: Rule, number: int, needed: Boxes, patch: Boxes | None) -> Source:
        if patch is None:
            return Source(number, needed, needed, gathered=True)
        same = needed.same(patch)
        # Beyond the edge a patch holds nothing that may be read as padding.
        plain = same and (rule.stays or patch.inside(self._grid(number).extents))
        return Source(number, needed, patch, gathered=not plain)

    def _grid(self, number: int) -> Grid:
        return self._regions.scene.grids[number]

    @torch.no_grad()
    def keep(self, batch: Tensor) -> dict[int, Any]:
        """The clean contents of every value that regions are gathered from, for inputs (N, C, *S)."""
        values = self._clean.run({**self._constants, INPUT: batch.clone(memory_format=torch.preserve_format)})
        kept = {INPUT: batch, **{n: self._laid_out(values[n]) for n in self.kept}}
        taken = {n: self._sizes[n] for n in kept if self._sizes.get(n, math.inf) < math.inf}
        return {**kept, _CAREFUL: not all(care.within(kept[n], size) for n, size in taken.items())}

    def _laid_out(self, value: Tensor) -> Tensor:
        """A kept value in the layout in which regions run."""
        fused = self._regions.captured.fuses and value.ndim == 4
        return value.contiguous(memory_format=torch.channels_last) if fused else value

    @torch.no_grad()
    def patches(
        self, group: Group, part: Tensor, first: Tensor, sample: Tensor, kept: Mapping[int, Any]
    ) -> dict[int, Any]:
        """The patches (rows, ...) of the frontier for some rows of a group.

        Args:
            group: of rows.
            part: LongTensor (rows,), which of the group's boxes each row has.
            first: (rows, C, *s) what the input has inside those.
            sample: LongTensor (rows,), which of the kept inputs each row is a variant of.
            kept: of `keep`.
        """
        if self.half is None:
            rows = Rows(self._regions, part, sample, kept, {INPUT: first})
        else:
            rows = Differences(self._regions, part, sample, kept, {INPUT: first}, group.first, self.half)
        with care.run(careful=kept[_CAREFUL]):
            for move in group.moves:
                rows.run(move)
        return {n: rows.contents(n, group.frontier[n]) for n in self.division.frontier}

    def paste(
        self,
        group: Group,
        part: Tensor,
        patches: Mapping[int, Any],
        sample: Tensor,
        kept: Mapping[int, Any],
        out: Mapping[int, Tensor],
    ) -> None:
        """Writes the frontier of some rows as whole maps into `out`, which holds a tensor (rows, ...) per value."""
        for number, boxes in group.frontier.items():
            grid = self._grid(number)
            own = beside(boxes.at, part)[part]
            at = torch.zeros_like(own)
            gathered(kept[number], patches[number], own, sample, at, grid, grid.extents, Border(), out[number])

    def empty(self, rows: int, kept: Mapping[int, Any]) -> dict[int, Tensor]:
        """Room for whole maps of the frontier."""
        return {n: empty_like(kept[n], rows, kept[n].shape[1:]) for n in self.division.frontier}

    @torch.no_grad()
    def finish(self, values: Mapping[int, Tensor]) -> Any:
        """The model's raw output from whole maps (rows, ...) of the frontier."""
        graph = self._regions.captured.graph
        rows = len(next(iter(values.values())))
        given: dict[int, Any] = {**values, **self._constants}
        for number in self.division.shapes:
            trait = graph.traits[number]
            assert trait.shape is not None
            given[number] = torch.zeros((), dtype=trait.dtype).expand(rows, *trait.shape[1:])
        made = {**self._regions.scene.fixed, **given, **self._rest.run(given)}
        return filled(graph.output, {n: made[self._regions.name(n)] for n in graph.results})


@dataclass(frozen=True)
class Group:
    """Boxes that run together, and everything about them that can be known before.

    Attributes:
        first: their boxes in the input.
        moves: the steps.
        frontier: their boxes in the values of the frontier.
    """

    first: Boxes
    moves: tuple[Move, ...]
    frontier: Mapping[int, Boxes]

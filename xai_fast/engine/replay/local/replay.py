"""One division of a captured model, ready to run: regions first, then what follows on whole maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.graph.steps import INPUT, Step, filled, last_uses
from xai_fast.ops import region_gather

from .boxes import Boxes, Grid, Spans, covering
from .regions import Division, Regions, rules_of
from .rule import Border, Rule


@dataclass(frozen=True)
class Source:
    """What a step reads: the region of a value, gathered, or its patch as it is."""

    number: int
    boxes: Boxes
    patch: Boxes
    gathered: bool


@dataclass(frozen=True)
class Move:
    """One step for the rows of a group: what it reads, where it lies, what may be forgotten afterwards."""

    step: Step
    rule: Rule
    sources: tuple[Source, ...]
    extras: tuple[Tensor, ...]
    dead: tuple[int, ...]


class Replay:
    """A captured model divided into regions and whole maps.

    Args:
        regions: the model.
        division: of its steps.

    Attributes:
        kept: the values whose clean contents regions are gathered from.
    """

    def __init__(self, regions: Regions, division: Division) -> None:
        captured, graph = regions.captured, regions.captured.graph
        self._regions, self.division = regions, division
        steps = captured.fused(division.local, {INPUT}, division.frontier)
        rules = rules_of(steps, regions)
        if rules is None:
            steps, rules = division.local, {step.makes: regions.rules[step.makes] for step in division.local}
        self.steps: Sequence[Step] = steps
        self.rules: Mapping[int, Rule] = rules
        moving = {n for rule in rules.values() if not rule.stays for n in rule.sources}
        self.kept = tuple(sorted((moving | set(division.frontier)) - set(regions.scene.fixed) - {INPUT}))
        self._clean = captured.program(division.clean, {INPUT}, self.kept, plain=captured.short_sums)
        given = {*division.frontier, *division.shapes}
        results = [n for n in regions.results if n not in given]
        self._rest = captured.program(division.rest, given, results)
        read = {*self._clean.reads, *self._rest.reads} - graph.fixed.keys()
        self._constants = {n: value for n, value in regions.scene.fixed.items() if n in read}
        self._last = last_uses(steps, division.frontier)
        self.row_bytes = sum(graph.traits[n].size for n in (*self.kept, INPUT))

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
        return {INPUT: batch, **{n: self._laid_out(values[n]) for n in self.kept}}

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
        patches: dict[int, Any] = {INPUT: first}
        constants = self._regions.scene.fixed
        for move in group.moves:
            lookup = (part, patches, sample, kept, move.rule.border, move.rule.grid)
            regions = [self._region(source, *lookup) for source in move.sources]
            for position, source in enumerate(move.sources):
                shared = regions[position] is patches.get(source.number) and source.number not in move.dead
                if source.number in move.rule.consumes and shared:
                    regions[position] = regions[position].clone(memory_format=torch.preserve_format)
            extras = [extra[part] for extra in move.extras]
            patches[move.step.makes] = move.rule.apply(regions, extras, constants)
            for number in move.dead:
                patches.pop(number, None)
        return {n: patches[n] for n in self.division.frontier}

    def _region(
        self,
        source: Source,
        part: Tensor,
        patches: Mapping[int, Any],
        sample: Tensor,
        kept: Mapping[int, Any],
        border: Border,
        own: Grid,
    ) -> Tensor:
        patch = patches.get(source.number)
        if not source.gathered:
            return patch  # type: ignore[return-value]
        base = kept[source.number] if source.number in kept else self._regions.scene.fixed[source.number]
        at = None if patch is None else source.patch.at[part]
        # A constant lies where the output does.
        grid = self._regions.scene.grids.get(source.number, own)
        return gathered(base, patch, at, sample, source.boxes.at[part], source.boxes.size, grid, border)

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
            at = torch.zeros_like(boxes.at[part])
            lookup = (planes(kept[number], grid), planes(patches[number], grid), boxes.at[part], sample, at)
            _write(lookup, out[number], grid, Border())

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


def gathered(
    base: Tensor,
    patch: Tensor | None,
    patch_at: Tensor | None,
    sample: Tensor,
    at: Tensor,
    size: Sequence[int],
    grid: Grid,
    border: Border,
) -> Tensor:
    """The region of a value: its patch where that lies, the clean contents elsewhere, in the clean one's layout."""
    if not base.dtype.is_floating_point:  # conditions and the like, which are rare
        numbers = None if patch is None else patch.float()
        return gathered(base.float(), numbers, patch_at, sample, at, size, grid, border).to(base.dtype)
    if patch is None:
        base = _as_rows(base, grid)
    if len(base) == 1:
        sample = torch.zeros_like(sample)
    shape = list(base.shape[1:])
    for axis, extent in zip(grid.axes, size, strict=True):
        shape[axis] = extent
    out = empty_like(base, len(at), shape)
    lookup = (planes(base, grid), None if patch is None else planes(patch, grid), patch_at, sample, at)
    _write(lookup, out, grid, border)
    return out


def _as_rows(constant: Tensor, grid: Grid) -> Tensor:
    """A constant that is combined with maps, with axes for rows and channels and with full extents."""
    constant = constant.view(*[1] * max(0, 1 - min(grid.axes) + 1 - constant.ndim), *constant.shape)
    shape = list(constant.shape)
    for axis, extent in zip(grid.axes, grid.extents, strict=True):
        shape[axis] = extent
    return constant.expand(shape)


def _write(lookup: tuple[Any, ...], out: Tensor, grid: Grid, border: Border) -> None:
    """`region_gather` into a tensor whose positions lie on any axes."""
    target = planes(out, grid)
    region_gather(*lookup, target, border.mode, border.fill)
    if target.untyped_storage().data_ptr() != out.untyped_storage().data_ptr():  # no view of it has that shape
        moved = out.movedim(grid.axes, tuple(range(-len(grid.axes), 0)))
        moved.copy_(target.view(moved.shape))


def planes(tensor: Tensor, grid: Grid) -> Tensor:
    """A view (rows, C, *S) of a tensor whose positions lie on any axes."""
    axes = len(grid.axes)
    if tensor.ndim == axes + 2 and grid.axes == tuple(range(-axes, 0)):
        return tensor
    moved = tensor.movedim(grid.axes, tuple(range(-axes, 0)))
    return moved.reshape(len(moved), -1, *moved.shape[moved.ndim - axes :])


def empty_like(base: Tensor, rows: int, shape: Sequence[int]) -> Tensor:
    """Uninitialised (rows, *shape) in the memory order of `base`."""
    last = base.ndim == 4 and base.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((rows, *shape), dtype=base.dtype, device=base.device, memory_format=layout)

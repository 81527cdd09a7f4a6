"""Rows that carry how they differ from the clean input, in half precision: rounding is then a share of the difference.

What a bfloat16 number loses is relative to its size. A region as it is loses a share of the whole activation, which may
be larger than what hiding a window changes; its difference to the clean one loses a share of that change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xai_fast.ops import all_ops, relu_change

from .boxes import Boxes, Grid
from .regions import Regions
from .rows import Lookup, Move, Rows, Source, gathered, room
from .rule import Border


class Differences(Rows):
    """Rows whose patches are differences to the clean contents, zero outside their boxes.

    Linear steps run on differences in half precision; for all others the clean contents are added, in their own
    precision, and what the step makes of those alone is taken off.

    Args:
        regions, part, sample, kept: as for `Rows`.
        patches: what the input has inside the boxes, as it is.
        first: those boxes.
        half: dtype of the differences.
    """

    def __init__(
        self,
        regions: Regions,
        part: Tensor,
        sample: Tensor,
        kept: Mapping[int, Any],
        patches: dict[int, Any],
        first: Boxes,
        half: torch.dtype,
    ) -> None:
        super().__init__(regions, part, sample, kept, patches)
        self._half = half
        for number, patch in patches.items():
            self.patches[number] = (patch - self._clean(number, first, Border(), regions.scene.grids[number])).to(half)

    def run(self, move: Move) -> None:
        """Runs a step and forgets what nobody needs any more."""
        made = self._rectified(move)
        self.patches[move.step.makes] = self._made(move) if made is None else made
        for number in move.dead:
            self.patches.pop(number, None)

    def _made(self, move: Move) -> Any:
        rule, constants = move.rule, self._regions.scene.fixed
        extras = self._extras(move)
        if rule.linear:
            return rule.difference([self._difference(move, source) for source in move.sources], extras, constants)
        clean = [self._clean(source.number, source.boxes, rule.border, rule.grid) for source in move.sources]
        changed = [self._changed(move, source, base) for source, base in zip(move.sources, clean, strict=True)]
        return self._subtracted(rule.apply(changed, extras, constants), rule.apply(clean, extras, constants))

    def _rectified(self, move: Move) -> Tensor | None:
        """What a ReLU, by far the most frequent of the other steps, makes in one pass; None where no kernel does."""
        if move.step.operation != "relu" or len(move.sources) != 1 or move.sources[0].gathered:
            return None
        (source,) = move.sources
        base, change = self._kept.get(source.number), self.patches.get(source.number)
        if not isinstance(base, Tensor) or not isinstance(change, Tensor) or not base.ndim == change.ndim == 4:
            return None
        if self._regions.scene.grids[source.number].axes != (-2, -1):
            return None
        sample = torch.zeros_like(self._sample) if len(base) == 1 else self._sample
        arguments = (base, change, sample, self._origin(source.boxes))
        out = torch.empty_like(change)  # never over the change: a view of it may be another value's
        if not all_ops()["relu_change"].compiled(*arguments, out):
            return None
        return relu_change(*arguments, out)

    def _changed(self, move: Move, source: Source, clean: Tensor) -> Tensor:
        """What the rows have in the region of a source, which is ours to write into."""
        if source.number not in self.patches:
            return clean.clone()
        if not clean.dtype.is_floating_point:  # conditions have no difference and are carried as they are
            return self._region(move, source)
        return clean + self._difference(move, source)

    def contents(self, number: int, boxes: Boxes) -> Tensor:
        """What the rows have in the boxes of a value."""
        clean = self._clean(number, boxes, Border(), self._regions.scene.grids[number])
        return clean + self.patches[number] if clean.dtype.is_floating_point else self.patches[number]

    def _subtracted(self, changed: Any, clean: Any) -> Any:
        if isinstance(changed, list | tuple):
            return type(changed)(self._subtracted(*pair) for pair in zip(changed, clean, strict=True))
        return (changed - clean).to(self._half) if changed.dtype.is_floating_point else changed

    def _difference(self, move: Move, source: Source) -> Any:
        """The difference in the region of a source, which may write into it."""
        patch = self.patches[source.number]
        if not source.gathered:
            return patch.clone() if source.number in move.rule.consumes else patch
        grid = self._regions.scene.grids[source.number]
        shape = list(patch.shape[1:])
        for axis, extent in zip(grid.axes, grid.extents, strict=True):
            shape[axis] = extent
        nothing = torch.zeros((), dtype=patch.dtype, device=patch.device).expand(1, *shape)
        places = (self._origin(source.patch), self._sample, self._origin(source.boxes))
        border = Border(move.rule.border.mode)
        out = room(patch, len(patch), patch.shape[1:], grid, source.boxes.size)
        return gathered(*Lookup(nothing, patch, *places, grid), source.boxes.size, border, out)

    def _clean(self, number: int, boxes: Boxes, border: Border, own: Grid) -> Tensor:
        """The clean contents of a region."""
        base, grid = self._base(number, own)
        return gathered(base, None, None, self._sample, self._origin(boxes), grid, boxes.size, border)

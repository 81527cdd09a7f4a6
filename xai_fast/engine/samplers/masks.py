"""Masks of any form: each row hides the positions of one mask, inside whose box all that differs lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.ops import region_gather


@dataclass(frozen=True, eq=False)
class HiddenMasks:
    """Row r hides mask r % K of input r // K: its positions become the baseline.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        masks: BoolTensor (N, K, *S), or (1, K, *S) for the same masks on every input.
    """

    inputs: Tensor
    baseline: Tensor
    masks: Tensor
    change: ClassVar[str] = "boxes"

    def __len__(self) -> int:
        return len(self.inputs) * self.masks.shape[1]

    def sample_of(self, rows: Tensor) -> Tensor:
        """Masks of one input follow each other."""
        return rows // self.masks.shape[1]

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the inputs with their masks hidden."""
        sample = self.sample_of(rows).to(self.inputs.device)
        baseline = self.baseline.expand_as(self.inputs)
        out.copy_(torch.where(self._of(rows)[:, None], baseline[sample], self.inputs[sample]))

    def unchanged(self) -> Tensor:
        """BoolTensor (rows,): in which rows the baseline already lies under the mask."""
        differs = (self.inputs != self.baseline).any(1)[:, None]
        return ~(differs & self.masks).flatten(2).any(2).flatten().cpu()

    def spans(self) -> Tensor:
        """LongTensor (rows, A, 2): the smallest box around each mask; empty masks have empty boxes."""
        masks = self.masks.expand(len(self.inputs), *self.masks.shape[1:]).flatten(0, 1).cpu()
        axes = masks.ndim - 1
        spans = torch.zeros(len(masks), axes, 2, dtype=torch.long)
        for axis in range(axes):
            others = tuple(1 + a for a in range(axes) if a != axis)
            along = masks.any(others) if others else masks
            first, last = along.byte().argmax(1), along.shape[1] - along.byte().flip(1).argmax(1)
            spans[:, axis] = torch.stack([first, torch.where(along.any(1), last, first)], dim=1)
        return spans

    def patch(self, rows: Tensor, at: Tensor, out: Tensor) -> None:
        """Writes the variants from the positions `at` (rows, A) on into `out` (rows, C, *s)."""
        sample = self.sample_of(rows)
        inputs = torch.empty(out.shape, dtype=self.inputs.dtype, device=out.device)
        baseline, hidden = torch.empty_like(inputs), torch.empty_like(inputs[:, :1])
        region_gather(self.inputs, None, None, sample, at, inputs)
        region_gather(self.baseline.expand_as(self.inputs), None, None, sample, at, baseline)
        own = torch.arange(len(rows), device=rows.device)
        region_gather(self._of(rows)[:, None].to(inputs), None, None, own, at, hidden)
        out.copy_(torch.where(hidden.bool(), baseline, inputs))

    def _of(self, rows: Tensor) -> Tensor:
        sample = self.sample_of(rows) if len(self.masks) > 1 else torch.zeros_like(rows)
        number = rows % self.masks.shape[1]
        return self.masks[sample.to(self.masks.device), number.to(self.masks.device)]

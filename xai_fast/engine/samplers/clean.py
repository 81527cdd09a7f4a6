"""The clean inputs themselves, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside


@dataclass(frozen=True, eq=False)
class Clean:
    """Row n is input n, unchanged.

    Args:
        inputs: (N, C, *S).
        ids: LongTensor (N,), by which draws made for each input are keyed; None: 0 for all.
    """

    inputs: Tensor
    ids: Tensor | None = None
    change: ClassVar[str] = "nothing"

    def __len__(self) -> int:
        return len(self.inputs)

    def sample_of(self, rows: Tensor) -> Tensor:
        """Each row is its own input."""
        return rows

    def keys(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """By which draws that are made for the rows are keyed: the input's id, and the first draw's number."""
        return torch.zeros_like(rows) if self.ids is None else beside(self.ids, rows)[rows], torch.zeros_like(rows)

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Copies the inputs, in the batch's dtype and layout."""
        out.copy_(self.inputs[rows.to(self.inputs.device)])

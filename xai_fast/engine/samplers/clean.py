"""The clean inputs themselves, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Clean:
    """Row n is input n of (N, C, *S), unchanged."""

    inputs: Tensor
    change: ClassVar[str] = "nothing"

    def __len__(self) -> int:
        return len(self.inputs)

    def sample_of(self, rows: Tensor) -> Tensor:
        """Each row is its own input."""
        return rows

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Copies the inputs, in the batch's dtype and layout."""
        out.copy_(self.inputs[rows.to(self.inputs.device)])

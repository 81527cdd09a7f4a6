"""Inputs shown through maps on a coarse grid, enlarged when a row is written; none of the masks is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside


class Shown:
    """Row r is an input times one of its masks.

    Args:
        inputs: (N, C, *S).
        maps: of each input, (D, *s).
        enlarged: from maps (rows, 1, *s) and S to masks (rows, 1, *S).
    """

    change: ClassVar[str] = "everything"

    def __init__(
        self, inputs: Tensor, maps: Sequence[Tensor], enlarged: Callable[[Tensor, tuple[int, ...]], Tensor]
    ) -> None:
        self._inputs, self._maps, self._enlarged = inputs, torch.cat(list(maps)), enlarged
        self._sample = torch.repeat_interleave(torch.tensor([len(one) for one in maps]))

    def __len__(self) -> int:
        return len(self._maps)

    def sample_of(self, rows: Tensor) -> Tensor:
        """Whose map it is."""
        return beside(self._sample, rows)[rows]

    def unchanged(self) -> Tensor:
        """None is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """The products."""
        maps = self._maps[rows.to(self._maps.device), None]
        masks = self._enlarged(maps, tuple(self._inputs.shape[2:]))
        out.copy_(self._inputs[self.sample_of(rows).to(self._inputs.device)] * masks)

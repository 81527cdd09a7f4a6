"""One input again and again, for questions that change a layer and not the input."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor


class Repeated:
    """`times` rows that are all the first input.

    Args:
        inputs: (1, C, *S).
        times: how often.
    """

    change: ClassVar[str] = "nothing"

    def __init__(self, inputs: Tensor, times: int) -> None:
        self._inputs, self._times = inputs, times

    def __len__(self) -> int:
        return self._times

    def sample_of(self, rows: Tensor) -> Tensor:
        """All of input 0."""
        return torch.zeros_like(rows)

    def unchanged(self) -> Tensor:
        """None is known to give the clean answer: the question is another one."""
        return torch.zeros(self._times, dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """The input."""
        out.copy_(self._inputs.expand(len(rows), *self._inputs.shape[1:]))

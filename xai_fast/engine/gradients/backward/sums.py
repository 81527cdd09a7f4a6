"""Weighted sums over the rows of a batch, by groups."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.core.indices import known


class RowSums:
    """Sums (rows, ...) to (groups, ...).

    Args:
        weight: (rows,) of each row.
        group: LongTensor (rows,) which group it belongs to, from 0, never decreasing.
    """

    def __init__(self, weight: Tensor, group: Tensor) -> None:
        rows = torch.arange(len(group), device=group.device)
        self._matrix = weight.new_zeros(int(known(group)[-1]) + 1, len(group))
        self._matrix[group, rows] = weight

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._matrix)

    def __call__(self, tensor: Tensor) -> Tensor:
        """`tensor` (rows, ...); the result lies in memory as it does."""
        last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        moved = tensor.permute(0, 2, 3, 1) if last else tensor
        summed = (self._matrix.to(tensor) @ moved.reshape(len(tensor), -1)).view(-1, *moved.shape[1:])
        return summed.permute(0, 3, 1, 2) if last else summed

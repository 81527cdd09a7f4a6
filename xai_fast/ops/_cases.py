"""A case of an op: arguments that tests compare backends on and benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """Named arguments of an op's public function.

    Args:
        name: the workload the shapes come from, or what is odd about them.
        build: makes the arguments from a dtype and a seeded generator.
        dtypes: what the op takes here.
        workload: whether it is worth timing.
    """

    name: str
    build: Callable[[torch.dtype, torch.Generator], dict[str, Any]]
    dtypes: tuple[torch.dtype, ...]
    workload: bool = False

    def arguments(self, dtype: torch.dtype) -> dict[str, Any]:
        """Returns keyword arguments, the same ones on every call."""
        return self.build(dtype, torch.Generator().manual_seed(0))


def windows(extents: tuple[int, ...], size: int, stride: int) -> torch.Tensor:
    """Returns boxes (W, len(extents), 2) of sliding windows over all axes but the first, cut at the border."""
    stops = [max(min(extent - size + stride, extent), 1) for extent in extents[1:]]
    starts = [torch.arange(0, stop, stride) for stop in stops]
    corners = torch.cartesian_prod(*starts).reshape(-1, len(starts))
    boxes = torch.zeros(corners.shape[0], len(extents), 2, dtype=torch.int64)
    boxes[:, 0, 1] = extents[0]
    boxes[:, 1:, 0] = corners
    boxes[:, 1:, 1] = torch.minimum(corners + size, torch.tensor(extents[1:]))
    return boxes

"""What grid_reduce is tested and timed on: the masks of RISE and D-RISE, and odd numbers of everything."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from xai_fast.ops._cases import Case
from xai_fast.ops._grids import cell_extent
from xai_fast.ops.grid_masks.cases import masks


def _case(
    name: str, rows: int, extents: tuple[int, ...], cells: tuple[int, ...], targets: int, *, workload: bool = False
) -> Case:
    """Sums start from what is there."""

    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        grids, shifts = masks(rows, extents, cells, generator)
        positions = [cell_extent(*axis) for axis in zip(extents, cells, strict=True)]
        return {
            "grids": grids,
            "shifts": shifts,
            "weights": torch.randn((rows, targets), generator=generator, dtype=dtype),
            "bins": torch.randn((*positions, targets, *cells), generator=generator, dtype=dtype),
        }

    return Case(name, build, (torch.float64,), workload)


CASES = (
    _case("two hundred masks 224", 200, (224, 224), (7, 7), 1, workload=True),
    _case("two hundred masks 224, a hundred targets", 200, (224, 224), (7, 7), 100, workload=True),
    _case("two hundred masks 640, D-RISE", 200, (640, 640), (16, 16), 1, workload=True),
    _case("no rows", 0, (8, 8), (4, 4), 2),
    _case("no targets", 3, (8, 8), (4, 4), 0),
    _case("one bin", 9, (4, 4), (4, 4), 3),
    _case("one cell", 5, (6, 5), (1, 1), 2),
    _case("many rows of few bins", 40, (6, 9), (3, 4), 5),
    _case("signal", 11, (50,), (6,), 3),
    _case("volume", 7, (6, 7, 8), (2, 3, 4), 2),
)

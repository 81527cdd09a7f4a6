"""What surrogate_normal is tested and timed on: the coalitions of an image's segments, and odd shapes and layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case


def _arguments(
    rows: int, segments: int, targets: int, generator: Generator, *, share: float, sliced: bool = False
) -> dict[str, Any]:
    """Half of the rows show `share` of the segments, the others all but that; the sums start from what is there."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    start = normal(1 + segments, 1 + segments)
    drawn = torch.rand(rows, segments, generator=generator) < share
    arguments = {
        "keep": drawn ^ (torch.arange(rows) % 2 == 1)[:, None],
        "weights": normal(rows).square(),
        "scores": normal(rows, targets),
        "gram": start + start.T,
        "moment": normal(1 + segments, targets),
    }
    if sliced:
        arguments |= {name: arguments[name].repeat_interleave(2, 0)[::2] for name in ("keep", "weights", "scores")}
        arguments["scores"] = arguments["scores"].T.contiguous().T
    return arguments


def _case(
    name: str, rows: int, segments: int, targets: int = 1, *, share: float = 0.5, workload: bool = False, **odd: bool
) -> Case:
    def build(_: torch.dtype, generator: Generator) -> dict[str, Any]:
        return _arguments(rows, segments, targets, generator, share=share, **odd)

    return Case(name, build, (torch.float64,), workload)


CASES = (
    _case("a thousand coalitions of 60 segments", 1000, 60, workload=True),
    _case("two thousand coalitions of 200 segments", 2048, 200, workload=True),
    _case("two thousand coalitions of 200 segments, 5 targets", 2048, 200, 5, share=0.1, workload=True),
    _case("no rows", 0, 5, 2),
    _case("no segments", 7, 0, 2),
    _case("no targets", 7, 5, 0),
    _case("one row", 1, 9),
    _case("one segment", 9, 1),
    _case("rows that show nothing or everything", 6, 7, share=0.0),
    _case("a tile's width", 70, 31, 2),
    _case("a tile's width and one", 65, 32, 3),
    _case("several tiles", 131, 75, 37),
    _case("sliced", 21, 40, 3, sliced=True),
)

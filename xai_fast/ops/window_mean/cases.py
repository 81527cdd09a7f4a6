"""What window_mean is tested and timed on: grids of occlusion windows, and odd ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from xai_fast.ops._cases import Case, windows

DTYPES = (torch.float32, torch.float64)


def _case(
    name: str,
    shape: tuple[int, ...],
    size: int,
    stride: int,
    *,
    samples: int = 1,
    targets: int = 1,
    n_windows: int | None = None,
    scale: float = 1.0,
    workload: bool = False,
) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        boxes = windows(shape, size, stride)[:n_windows]
        values = torch.randn(samples, len(boxes), targets, generator=generator, dtype=torch.float64) * scale
        return {"values": values.to(dtype), "boxes": boxes, "shape": shape}

    return Case(name, build, DTYPES, workload)


def _score_table(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """The values as a transposed view with room between windows."""
    boxes = windows((1, 30, 31), 7, 4)
    table = torch.randn(3, 2, 2 * len(boxes), generator=generator).to(dtype)
    return {"values": table.transpose(1, 2)[:, ::2], "boxes": boxes, "shape": (1, 30, 31)}


def _special(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Values that are no finite number must stay within their windows."""
    boxes = windows((1, 20, 20), 5, 3)
    values = torch.randn(2, len(boxes), 2, generator=generator).to(dtype)
    values[0, 3, 0], values[0, 9, 1], values[1, 0, 1] = torch.inf, torch.nan, -torch.inf
    return {"values": values, "boxes": boxes, "shape": (1, 20, 20)}


CASES = (
    _case("occlusion 224, window 15, stride 8", (1, 224, 224), 15, 8, workload=True),
    _case("occlusion 224, eight samples, five targets", (1, 224, 224), 15, 8, samples=8, targets=5, workload=True),
    _case("occlusion 224, window 32, stride 4", (1, 224, 224), 32, 4, workload=True),
    _case("no samples", (1, 8, 8), 3, 2, samples=0),
    _case("no windows", (1, 8, 8), 3, 2, n_windows=0),
    _case("one window", (3, 8, 8), 3, 2, n_windows=1),
    _case("windows of one element", (3, 4, 5), 1, 1),
    _case("gaps between windows", (3, 17, 19), 2, 5),
    _case("tiny values", (1, 9, 9), 3, 1, scale=1e-30),
    _case("subnormal values", (1, 9, 9), 3, 1, scale=1e-310),
    _case("zeros", (1, 9, 9), 3, 1, scale=0.0),
    _case("signal", (2, 60), 7, 3, samples=2),
    _case("volume", (2, 7, 8, 9), 3, 2, targets=2),
    Case("strided score table", _score_table, DTYPES),
    Case("infinite and undefined values", _special, DTYPES),
)

"""What grid_masks is tested and timed on: masks of RISE and D-RISE, and odd shapes and layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING
from xai_fast.ops._grids import cell_extent
from xai_fast.ops.add_noise.cases import CONVERTED
from xai_fast.ops.hide_windows.cases import CHANNELS_LAST


def masks(rows: int, extents: tuple[int, ...], cells: tuple[int, ...], generator: Generator) -> tuple[Tensor, Tensor]:
    """Grids (M, *cells), the first without a cell that is kept and the second full, and shifts (M, A)."""
    grids = torch.rand((rows, *cells), generator=generator) < 0.5
    grids[:1], grids[1:2] = False, True
    share = torch.rand((rows, len(cells)), generator=generator)
    positions = torch.tensor([cell_extent(*axis) for axis in zip(extents, cells, strict=True)])
    shifts = (share * positions).long()
    shifts[2:3] = positions - 1
    return grids, shifts


def _arguments(
    inputs: Tensor, baseline: Tensor, rows: int, cells: tuple[int, ...], generator: Generator
) -> dict[str, Any]:
    grids, shifts = masks(rows, tuple(inputs.shape[2:]), cells, generator)
    return {
        "inputs": inputs,
        "baseline": baseline,
        "grids": grids,
        "shifts": shifts,
        "sample": torch.arange(rows) % max(len(inputs), 1),
    }


def _case(
    name: str,
    shape: tuple[int, ...],
    rows: int,
    *cells: int,
    baseline: tuple[int, ...] = (),
    inputs_last: bool = False,
    last: bool = False,
    converted: bool = False,
    workload: bool = False,
) -> Case:
    """`baseline`: its shape, which broadcasts."""

    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        inputs = torch.randn(shape, generator=generator).to(dtype)
        if inputs_last:
            inputs = inputs.contiguous(memory_format=CHANNELS_LAST[len(shape)])
        start = torch.randn(baseline, generator=generator).to(dtype)
        out = torch.empty((rows, *shape[1:]), dtype=CONVERTED[dtype] if converted else dtype)
        if last:
            out = out.contiguous(memory_format=CHANNELS_LAST[len(shape)])
        return {**_arguments(inputs, start, rows, cells, generator), "out": out.fill_(torch.nan)}

    return Case(name, build, FLOATING, workload)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider tensors, on all sides, and masks taken from wider tables."""
    wide = torch.randn((2, 4, 9, 22), generator=generator).to(dtype)
    arguments = _arguments(wide[:, 1:, :, ::2], wide[:, :3, :, 1::2], 5, (3, 4), generator)
    sliced = {name: arguments[name].repeat_interleave(2, dim=-1)[..., ::2] for name in ("grids", "shifts", "sample")}
    return {**arguments, **sliced, "out": torch.full((5, 5, 9, 22), torch.nan, dtype=dtype)[:, 1:4, :, 1::2]}


def _transposed(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Rows, height and width in unusual order in memory, differently on each side."""
    inputs, baseline = (torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 3, 12, 10), (10, 3, 2, 12)))
    arguments = _arguments(inputs.transpose(2, 3), baseline.permute(2, 1, 0, 3), 4, (3, 3), generator)
    return {**arguments, "out": torch.full((12, 4, 3, 10), torch.nan, dtype=dtype).permute(1, 2, 3, 0)}


CASES = (
    _case("eight masks 224, NCHW", (1, 3, 224, 224), 8, 7, 7, workload=True),
    _case("eight masks 224, NCHW to NHWC", (1, 3, 224, 224), 8, 7, 7, last=True, workload=True),
    _case(
        "eight masks 224, own baseline, NHWC",
        (2, 3, 224, 224),
        8,
        16,
        16,
        baseline=(2, 3, 224, 224),
        inputs_last=True,
        last=True,
        workload=True,
    ),
    _case("no rows", (2, 3, 8, 8), 0, 4, 4),
    _case("empty images", (2, 3, 0, 5), 2, 4, 2),
    _case("one cell", (1, 3, 8, 8), 3, 1, 1),
    _case("two cells", (1, 3, 9, 8), 4, 2, 2),
    _case("a cell per position", (1, 2, 5, 7), 4, 5, 7),
    _case("more cells than positions", (1, 2, 3, 4), 4, 5, 6),
    _case("one position", (2, 3, 1, 1), 4, 3, 2, last=True),
    _case("one column", (2, 3, 9, 1), 4, 3, 2),
    _case("odd planes", (2, 3, 7, 5), 5, 3, 2, baseline=(2, 3, 7, 5)),
    _case("odd planes, NHWC to NCHW", (2, 3, 7, 5), 5, 2, 3, inputs_last=True),
    _case("baseline per channel", (2, 3, 12, 13), 6, 4, 4, baseline=(3, 1, 1), last=True),
    _case("baseline row", (2, 3, 12, 13), 6, 4, 5, baseline=(13,)),
    _case("converted", (2, 3, 12, 13), 6, 5, 5, converted=True),
    _case("converted, NCHW to NHWC", (2, 3, 12, 13), 6, 5, 5, last=True, converted=True),
    _case("one channel, several tiles", (1, 1, 81, 67), 3, 7, 7, last=True),
    _case("seventy channels", (2, 70, 9, 9), 3, 4, 4, last=True),
    _case("long lines", (1, 3, 2, 1500), 3, 2, 7, last=True),
    _case("signal", (3, 2, 50), 7, 6),
    _case("volume", (2, 3, 6, 7, 8), 5, 2, 3, 4, last=True),
    Case("sliced", _sliced, FLOATING),
    Case("transposed", _transposed, FLOATING),
)

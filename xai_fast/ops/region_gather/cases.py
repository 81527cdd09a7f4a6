"""What region_gather is tested and timed on: layers of ResNet-50 behind a hidden window, and odd shapes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from xai_fast.ops._cases import Case
from xai_fast.ops._checks import FLOATING

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _maps(shape: tuple[int, ...], dtype: torch.dtype, generator: Generator, *, last: bool) -> Tensor:
    maps = torch.randn(shape, generator=generator).to(dtype)
    return maps.contiguous(memory_format=CHANNELS_LAST[len(shape)]) if last else maps


def _case(
    name: str,
    base: tuple[int, ...],
    patch: tuple[int, ...] | None,
    region: tuple[int, ...],
    *,
    patch_at: list[list[int]] | None = None,
    at: list[list[int]] | None = None,
    rows: int = 16,
    last: bool = True,
    border: str = "constant",
    fill: float = 0.0,
    workload: bool = False,
) -> Case:
    """Rows cycle through the maps and the origins; by default patches anywhere, each region around its patch."""

    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        samples, channels, *extents = base
        box = region if patch is None else patch
        spans = [max(extent - size + 1, 1) for extent, size in zip(extents, box, strict=True)]
        origins = torch.stack([torch.randint(span, (rows,), generator=generator) for span in spans], dim=1)
        if patch_at is not None:
            origins = torch.tensor(patch_at)[torch.arange(rows) % len(patch_at)]
        halo = torch.tensor([(outer - inner) // 2 for outer, inner in zip(region, box, strict=True)])
        return {
            "base": _maps(base, dtype, generator, last=last),
            "patch": None if patch is None else _maps((rows, channels, *patch), dtype, generator, last=last),
            "patch_at": None if patch is None else origins,
            "sample": torch.arange(rows) % max(samples, 1),
            "at": origins - halo if at is None else torch.tensor(at)[torch.arange(rows) % len(at)],
            "out": _maps((rows, channels, *region), dtype, generator, last=last),
            "border": border,
            "fill": fill,
        }

    return Case(name, build, FLOATING, workload)


def _sliced(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Every second column of wider tensors, on all sides."""
    build = _case("", (2, 4, 7, 16), (3, 6), (5, 10), rows=4, last=False).build
    arguments = build(dtype, generator)
    out = torch.full((4, 5, 5, 20), torch.nan, dtype=dtype)[:, 1:, :, 1::2]
    at = arguments["at"].repeat_interleave(2, 1)[:, ::2]
    sliced = {key: arguments[key][..., ::2] for key in ("base", "patch")}
    return {**arguments, **sliced, "out": out, "at": at}


def _transposed(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
    """Rows, height and width in unusual order in memory, differently on each side."""
    build = _case("", (2, 3, 9, 8), (4, 3), (6, 6), rows=4, border="reflect").build
    arguments = build(dtype, generator)
    arguments["patch"] = arguments["patch"].transpose(2, 3).contiguous().transpose(2, 3)
    return {**arguments, "out": torch.full((6, 4, 3, 6), torch.nan, dtype=dtype).permute(1, 2, 3, 0)}


def _mixed(base_last: bool, patch_last: bool, out_last: bool) -> Case:
    def build(dtype: torch.dtype, generator: Generator) -> dict[str, Any]:
        arguments = _case("", (2, 3, 11, 12), (4, 5), (8, 9), rows=4, last=False).build(dtype, generator)
        for key, last in (("base", base_last), ("patch", patch_last), ("out", out_last)):
            if last:
                arguments[key] = arguments[key].contiguous(memory_format=torch.channels_last)
        return arguments

    flags = zip(("base", "patch", "out"), (base_last, patch_last, out_last), strict=True)
    return Case("pixels dense in " + ", ".join(key for key, last in flags if last), build, FLOATING)


CORNERS = [[-2, -3], [-2, 6], [5, -3], [5, 6]]  # of a patch 4x5 that hangs over each corner of a map 7x8
AROUND = [[-3, -4], [-3, 5], [3, -4], [3, 5]]  # of a region 7x7 there
FAR = [[-(2**63), 2**63 - 1], [2**63 - 1, -(2**63)], [-1000, 999], [3, 2**62]]
BORDERS = ("constant", "replicate", "reflect", "circular")

CASES = (
    _case("layer1, 8x8 in 56x56", (2, 64, 56, 56), (8, 8), (10, 10), workload=True),
    _case("layer3, 7x7 in 14x14", (2, 256, 14, 14), (7, 7), (9, 9), workload=True),
    _case("whole map, 9x9 in 14x14", (2, 1024, 14, 14), (9, 9), (14, 14), at=[[0, 0]], workload=True),
    _case("image at its edges", (2, 3, 224, 224), (15, 15), (21, 21), patch_at=[[-3, 5], [212, 99]], workload=True),
    _case("layer1, NCHW", (2, 64, 56, 56), (8, 8), (10, 10), last=False, workload=True),
    _case("whole map, NCHW", (2, 1024, 14, 14), (9, 9), (14, 14), at=[[0, 0]], last=False, workload=True),
    _case("no rows", (2, 3, 8, 8), (2, 2), (4, 4), rows=0),
    _case("no channels", (2, 0, 8, 8), (2, 2), (4, 4), rows=2),
    _case("no columns in the region", (2, 3, 8, 8), (2, 2), (4, 0), rows=2),
    _case("no columns in the patch", (2, 3, 8, 8), (2, 0), (4, 4), rows=2),
    _case("empty maps", (2, 3, 0, 5), (2, 2), (4, 4), rows=2, fill=1.5),
    _case("one element", (1, 1, 1, 1), (1, 1), (1, 1), rows=1),
    _case("one row", (1, 3, 8, 8), (3, 3), (5, 5), rows=1),
    _case("no patch", (2, 5, 8, 9), None, (5, 4), rows=5, at=[[-2, 6], [3, 3]]),
    _case("no patch, NCHW", (2, 5, 8, 9), None, (5, 4), rows=5, at=[[-2, 6], [3, 3]], last=False),
    _case("patch outside the map", (2, 3, 7, 8), (2, 3), (7, 7), rows=4, patch_at=[[7, 0], [-2, -3]], at=AROUND),
    _case("patch beside the region", (2, 3, 9, 9), (2, 2), (3, 3), rows=2, patch_at=[[6, 6]], at=[[0, 0], [6, 0]]),
    _case("patch covers the map", (2, 3, 4, 4), (9, 9), (6, 7), rows=2, patch_at=[[-3, -2]], at=[[-1, -1]]),
    _case("region inside the patch", (2, 3, 9, 9), (6, 6), (2, 3), rows=3, patch_at=[[2, 1]], at=[[3, 3], [5, 2]]),
    _case("fill -inf", (2, 6, 7, 8), (4, 5), (7, 7), patch_at=CORNERS, at=AROUND, rows=4, fill=-math.inf),
    _case("two channels, NCHW", (2, 2, 20, 21), (4, 5), (9, 8), rows=5, last=False),
    _case("seventy channels", (2, 70, 9, 9), (3, 3), (5, 5), rows=5),
    _case("long rows", (1, 3, 60, 70), (20, 30), (64, 80), rows=2, at=[[-2, -3]]),
    *(
        case
        for border in BORDERS
        for case in (
            _case(
                f"corners, {border}", (2, 6, 7, 8), (4, 5), (7, 7), patch_at=CORNERS, at=AROUND, rows=4, border=border
            ),
            _case(
                f"larger than the map, {border}", (2, 3, 4, 3), (2, 2), (19, 17), at=[[-8, -7]], rows=3, border=border
            ),
            _case(
                f"far outside, {border}",
                (2, 3, 5, 4),
                (2, 2),
                (6, 7),
                patch_at=FAR,
                at=FAR[::-1],
                rows=4,
                border=border,
            ),
            _case(
                f"thin maps, {border}", (2, 3, 1, 2), (1, 1), (5, 6), at=[[-2, -3]], rows=2, border=border, last=False
            ),
            _case(
                f"signal, {border}",
                (3, 2, 30),
                (7,),
                (40,),
                patch_at=[[-2], [11], [26]],
                rows=4,
                border=border,
                last=False,
            ),
            _case(f"volume, {border}", (2, 3, 4, 5, 6), (2, 2, 3), (5, 6, 7), rows=4, at=[[-1, 1, -2]], border=border),
        )
    ),
    *(_mixed(*(bool(mask >> bit & 1) for bit in range(3))) for mask in range(1, 7)),
    Case("sliced", _sliced, FLOATING),
    Case("transposed", _transposed, FLOATING),
)

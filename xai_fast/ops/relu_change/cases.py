"""What relu_change is tested and timed on: regions of ResNets' maps around a hidden window, borders, odd sizes."""

from __future__ import annotations

from typing import Any

import torch

from xai_fast.ops._cases import Case


def _case(
    name: str,
    maps: tuple[int, int, int, int],
    rows: int,
    size: tuple[int, int],
    *,
    special: bool = False,
    workload: bool = False,
) -> Case:
    """`maps`: (N, C, H, W)."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> dict[str, Any]:
        count, channels, *extents = maps
        layout = torch.channels_last
        base = torch.randn(maps, generator=generator).contiguous(memory_format=layout)
        change = torch.randn(rows, channels, *size, generator=generator).to(dtype).contiguous(memory_format=layout)
        if special:
            base[:, ::7], base[:, 3::7], change[:, ::5] = torch.nan, torch.inf, -torch.inf
        rooms = [have - need + 1 for have, need in zip(extents, size, strict=True)]
        places = [torch.randint(0, room, (rows,), generator=generator) for room in rooms]
        return {
            "base": base,
            "change": change,
            "sample": torch.randint(0, max(count, 1), (rows,), generator=generator),
            "at": torch.stack(places, dim=1),
            "out": torch.empty_like(change),
        }

    return Case(name, build, (torch.bfloat16,), workload)


CASES = (
    _case("ResNet layer1, 64 rows", (1, 256, 56, 56), 64, (9, 9), workload=True),
    _case("ResNet layer3, 64 rows of two images", (2, 1024, 14, 14), 64, (7, 8), workload=True),
    _case("no rows", (2, 8, 5, 5), 0, (2, 2)),
    _case("whole maps", (3, 5, 4, 6), 7, (4, 6)),
    _case("one position", (1, 3, 5, 5), 4, (1, 1)),
    _case("beside vectors", (2, 7, 9, 8), 5, (3, 5)),
    _case("NaN and infinity", (2, 16, 6, 6), 6, (3, 3), special=True),
)

"""Batches as the methods write them, beyond the size of any cache: what ops are timed on, on processors and GPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BATCH_BYTES = 128 << 20  # written by one call
WRITING = ("hide_windows", "hide_segments", "grid_masks", "blend_maps", "add_noise", "path_points", "region_gather")


def rows_of(name: str, dtype: torch.dtype, size: int) -> int:
    """How many rows of `arguments_of` at 224 pixels make a batch of `size` bytes."""
    return size // (dtype.itemsize * (256 * 10 * 10 if name == "region_gather" else 3 * 224 * 224))


def arguments_of(name: str, dtype: torch.dtype, layout: str, rows: int, size: int) -> dict[str, Any]:
    """A batch as the methods write it: variants of one photograph, or regions of a layer's map."""
    generator = torch.Generator().manual_seed(0)
    form = torch.channels_last if layout == "NHWC" else torch.contiguous_format

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).to(memory_format=form)

    if name == "region_gather":
        patch_at = torch.randint(0, 48, (rows, 2), generator=generator)
        return {
            **{"base": random(1, 256, 56, 56), "patch": random(rows, 256, 8, 8), "patch_at": patch_at},
            **{"sample": torch.zeros(rows).long(), "at": patch_at - 1, "out": random(rows, 256, 10, 10)},
        }
    shape = (rows, 3, size, size)
    given = {"inputs": random(1, *shape[1:]), "sample": torch.zeros(rows).long()}
    out = {"out": torch.empty(shape, dtype=dtype, memory_format=form)}
    zero, numbers = torch.zeros(1, 3, 1, 1, dtype=dtype), torch.arange(rows)
    if name == "hide_windows":
        start = torch.randint(0, size - 15, (rows, 2), generator=generator)
        channels = torch.tensor([[0, 3]]).expand(rows, 1, 2)
        boxes = torch.cat([channels, torch.stack([start, start + 15], 2)], 1)
        return {**given, "baseline": zero, "boxes": boxes, **out}
    if name == "hide_segments":
        side = torch.arange(size) // 16
        labels = (side[:, None] * (size // 16) + side)[None]
        keep = torch.rand(rows, int(labels.max()) + 1, generator=generator) < 0.5
        return {**given, "baseline": zero, "labels": labels, "keep": keep, **out}
    if name == "grid_masks":
        grids = torch.rand(rows, 7, 7, generator=generator) < 0.5
        shifts = torch.randint(0, -(-size // 7), (rows, 2), generator=generator)
        return {**given, "baseline": zero, "grids": grids, "shifts": shifts, **out}
    if name == "blend_maps":
        maps = torch.rand(rows, 7, 7, generator=generator)
        return {**given, "maps": maps, "number": numbers, "scale": torch.ones(rows).double(), **out}
    if name == "add_noise":
        scale = torch.full((rows,), 0.15, dtype=torch.float64)
        return {**given, "scale": scale, "key": torch.zeros(rows).long(), "draw": numbers, "seed": 1, **out}
    alpha = torch.linspace(0, 1, rows, dtype=torch.float64)
    return {**given, "baseline": random(1, *shape[1:]), "reference": torch.zeros(rows).long(), "alpha": alpha, **out}

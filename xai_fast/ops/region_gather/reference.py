"""region_gather in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def region_gather(
    base: Tensor,
    patch: Tensor | None,
    patch_at: Tensor | None,
    sample: Tensor,
    at: Tensor,
    out: Tensor,
    border: str,
    fill: float,
) -> None:
    """Writes each row: the fill, then what the map holds of its region, then what the patch does."""
    blank = torch.tensor(fill, dtype=torch.float64).to(out.dtype)
    for row, (index, start) in enumerate(zip(sample.tolist(), at.tolist(), strict=True)):
        region = out[row]
        axes = zip(start, region.shape[1:], base.shape[2:], strict=True)
        places = [[_place(first + i, extent, border) for i in range(length)] for first, length, extent in axes]
        region.fill_(blank)
        _paste(region, places, base[index], [0] * len(places))
        if patch is not None and patch_at is not None:
            _paste(region, places, patch[row], patch_at[row].tolist())


def _place(position: int, extent: int, border: str) -> int | None:
    """Returns where on an axis of the map a position reads, or None for the fill."""
    if border == "replicate":
        return min(max(position, 0), extent - 1)
    if border == "reflect":
        period = max(2 * (extent - 1), 1)
        return min(position % period, -position % period)
    if border == "circular":
        return position % extent
    return position if 0 <= position < extent else None


def _paste(region: Tensor, places: list[list[int | None]], values: Tensor, origin: list[int]) -> None:
    """Writes the elements of a region whose place is inside `values`, the first of which is at `origin`."""
    targets, sources = [], []
    for line, first, extent in zip(places, origin, values.shape[1:], strict=True):
        inside = [(i, p - first) for i, p in enumerate(line) if p is not None and 0 <= p - first < extent]
        targets.append(torch.tensor([i for i, _ in inside], dtype=torch.int64))
        sources.append(torch.tensor([source for _, source in inside], dtype=torch.int64))
    region[_mesh(targets)] = values[_mesh(sources)]


def _mesh(indices: list[Tensor]) -> tuple[slice | Tensor, ...]:
    """Indexes every channel at all combinations of the indices, one tensor per axis."""
    return (slice(None), *torch.meshgrid(indices, indexing="ij"))

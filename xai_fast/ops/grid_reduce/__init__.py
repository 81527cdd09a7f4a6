"""grid_reduce: add the grids of random masks, weighted, to a bin per shift, of which a map is made once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks, _grids
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced

from .maps import grid_maps as grid_maps


def bins_too_wide(_grids: Tensor, _bin: Tensor, _weights: Tensor, bins: Tensor) -> str | None:
    """Refuses bins whose elements a kernel cannot count with 32 bits."""
    return "a bin has 2^30 elements or more" if bins.shape[1:].numel() >= 2**30 else None


op = Op("grid_reduce", lazily(f"{__name__}.reference", "grid_reduce"), writes=("bins",))
op.offer("cpp", compiled("grid_reduce"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "grid_reduce"), unless=(no_triton, not_on_cuda, bins_too_wide))


@traced("(Tensor grids, Tensor shifts, Tensor weights, Tensor(a!) bins) -> ()", returns=("bins",))
def grid_reduce(grids: Tensor, shifts: Tensor, weights: Tensor, bins: Tensor) -> Tensor:
    """Adds `weights[m, t]` to `bins[shifts[m], t]` at every cell that `grids[m]` keeps.

    With the masks that `grid_masks` makes of grids and shifts, `grid_maps(bins, extents)` is then the sum over m of
    weight times mask, which is linear in the grid: masks of one shift are added up before they are enlarged, so that
    a row costs its cells and not its pixels.

    In the order of the rows whatever the number of threads: however many rows a call brings, the sums are the same to
    the last bit.

    Args:
        grids: BoolTensor (M, *cells), one to three axes.
        shifts: LongTensor (M, A): as many axes as there are of cells.
        weights: float64 (M, T).
        bins: (*positions, T, *cells) float64, contiguous, `positions` being those of a cell along each axis, from 0 to
            which shifts go. Shares no memory with the others.

    `weights` and `bins` are on one device; `grids` and `shifts` there or on the CPU. The values of `shifts` are checked
    on the CPU only: on another device the caller vouches for them. Gradients do not pass.

    Returns:
        `bins`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device, a memory layout or a value does not fit.
    """
    _check(grids, shifts, weights, bins)
    positions, cells = bins.shape[: shifts.shape[1]], grids.shape[1:]
    if bins.numel() and len(grids):
        strides = torch.tensor([positions[axis + 1 :].numel() for axis in range(len(positions))], device=shifts.device)
        grids, bin = (value.to(bins.device).contiguous() for value in (grids.flatten(1), (shifts * strides).sum(1)))
        op(grids, bin, weights.contiguous(), bins.view(positions.numel(), -1, cells.numel()))
    increment_version(bins)  # kernels write behind autograd's back: a graph that saved the bins must notice
    return bins


def _check(grids: Tensor, shifts: Tensor, weights: Tensor, bins: Tensor) -> None:
    axes = grids.dim() - 1
    if not 1 <= axes <= 3:
        raise ValueError(
            f"`grids` has shape {tuple(grids.shape)}; it takes (M, *cells) with one to three axes of cells"
        )
    for name, value in {"weights": weights, "bins": bins}.items():
        _checks.check_dtype(name, value, (torch.float64,))
    _checks.check_device("weights", weights, bins.device, "bins")
    for name, value in {"grids": grids, "shifts": shifts}.items():
        if not value.is_cpu:
            _checks.check_device(name, value, bins.device, "bins")
    rows = len(grids)
    targets = weights.shape[1] if weights.dim() == 2 else 0
    _checks.check_shape("weights", weights, (rows, targets), "(M, T)")
    cells = _grids.check_grids(grids, rows, axes)
    _checks.check_shape("bins", bins, (*bins.shape[:axes], targets, *cells), "(*positions, T, *cells)")
    _grids.check_shifts(shifts, rows, bins.shape[:axes])
    if not bins.is_contiguous():
        raise ValueError(f"`bins` has strides {bins.stride()}; it takes a contiguous tensor")

"""grid_masks: write input variants, each seen through an enlarged grid of cells, straight into a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks, _grids
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced


def rows_too_long(*args: Tensor) -> str | None:
    """Refuses rows whose elements a kernel cannot count with 32 bits."""
    return "a row has 2^30 elements or more" if args[-1].shape[1:].numel() >= 2**30 else None


op = Op("grid_masks", lazily(f"{__name__}.reference", "grid_masks"))
op.offer("cpp", compiled("grid_masks"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "grid_masks"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced("(Tensor inputs, Tensor baseline, Tensor grids, Tensor shifts, Tensor sample, Tensor(a!) out) -> ()")
def grid_masks(inputs: Tensor, baseline: Tensor, grids: Tensor, shifts: Tensor, sample: Tensor, out: Tensor) -> Tensor:
    """Fills row m of `out` with `b + mask[m] * (x - b)`, x and b of input `sample[m]`; see `_grids.places`.

    A mask is its grid, of ones where a cell is kept and zeros elsewhere, enlarged by linear interpolation to one cell
    more than covers the input, and cut out at its shift to the extents of the input (Petsiuk et al. 2018,
    arXiv:1806.07421, section 3.3). All channels share it. It is not stored: kernels interpolate from the grid as they
    go. Computed in float64 where `inputs` are, else in float32; where the mask is 0 or 1 the row is exact.

    Args:
        inputs: (N, C, *S), one to three spatial axes, float16, bfloat16, float32 or float64, any strides.
        baseline: broadcastable to `inputs`, of its dtype; expanded views are read as they are.
        grids: BoolTensor (M, *cells), at least one cell along each axis of S: which of them are kept.
        shifts: LongTensor (M, A), along each axis from 0 to `cell_extent(extent, cells) - 1`.
        sample: LongTensor (M,) with values in [0, N): which input each row is a variant of.
        out: (M, C, *S), any of the floating dtypes above and any memory layout whose elements do not overlap, sharing
            no memory with the others. Conversion rounds to nearest even. Gradients do not pass.

    `inputs`, `baseline` and `out` are on one device; the others there or on the CPU. The values of `sample` and
    `shifts` are checked on the CPU only: on another device the caller vouches for them.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    cells = _check(inputs, baseline, grids, shifts, sample, out)
    baseline = baseline if baseline.shape == inputs.shape else _checks.broadcast("baseline", baseline, inputs)
    if out.numel():
        places = _grids.all_places(tuple(inputs.shape[2:]), cells, out.device)
        grids, shifts, sample = (value.to(out.device).contiguous() for value in (grids, shifts, sample))
        op(inputs, baseline, grids, shifts, sample, places, out)
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(
    inputs: Tensor, baseline: Tensor, grids: Tensor, shifts: Tensor, sample: Tensor, out: Tensor
) -> tuple[int, ...]:
    _checks.check_axes("inputs", inputs)
    _checks.check_dtype("inputs", inputs, _checks.FLOATING)
    _checks.check_dtype("baseline", baseline, (inputs.dtype,))
    _checks.check_dtype("sample", sample, (torch.int64,))
    _checks.check_dtype("out", out, _checks.FLOATING)
    for name, value in {"inputs": inputs, "baseline": baseline}.items():
        _checks.check_device(name, value, out.device, "out")
    for name, value in {"grids": grids, "shifts": shifts, "sample": sample}.items():
        if not value.is_cpu:
            _checks.check_device(name, value, out.device, "out")
    rows = out.shape[0] if out.dim() else 0
    extents = inputs.shape[2:]
    _checks.check_shape("out", out, (rows, *inputs.shape[1:]), "(M, C, *S)")
    _checks.check_shape("sample", sample, (rows,), "(M,)")
    cells = _grids.check_grids(grids, rows, len(extents))
    _grids.check_shifts(shifts, rows, [_grids.cell_extent(*axis) for axis in zip(extents, cells, strict=True)])
    _checks.check_indices("sample", sample, inputs.shape[0], "inputs")
    return cells

"""window_mean: give each element the mean value of the windows that cover it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced


def maps_too_long(_values: Tensor, _boxes: Tensor, out: Tensor) -> str | None:
    """Refuses maps whose elements a kernel cannot count with 32 bits."""
    return "a map has 2^30 elements or more" if out.shape[2:].numel() >= 2**30 else None


op = Op("window_mean", lazily(f"{__name__}.reference", "window_mean"))
op.offer("cpp", compiled("window_mean"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "window_mean"), unless=(no_triton, not_on_cuda, maps_too_long))


def _like_result(values: Tensor, _boxes: Tensor, shape: Sequence[int]) -> Tensor:
    return values.new_empty((values.shape[0], values.shape[2], *shape))


@traced("(Tensor values, Tensor boxes, SymInt[] shape) -> Tensor", fake=_like_result)
def window_mean(values: Tensor, boxes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns the mean of the values of the windows that cover each element, 0 where none does.

    Sums are taken in float64 or exactly, so that before it is rounded to the dtype of `values` the result is
    within a few float64 roundings of max|values|. Gradients do not pass.

    Args:
        values: (N, W, K), float32 or float64, any strides: one value per sample, window and target.
        boxes: LongTensor (W, 1 + len(S), 2): half-open [start, stop) per axis, channels first, within
            `shape`; on the device of `values` or on the CPU, and checked there only.
        shape: (C, *S), one to three spatial axes. Where every window spans all channels, C = 1 and the
            channel range (0, 1) save work.

    Returns:
        (N, K, C, *S) in the dtype of `values`, dense.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a box does not fit.
    """
    _check(values, boxes, shape)
    samples, _, targets = values.shape
    out = torch.empty((samples, targets, *shape), dtype=values.dtype, device=values.device)
    op(values, boxes.to(values.device).contiguous(), out)
    return out


def _check(values: Tensor, boxes: Tensor, shape: tuple[int, ...]) -> None:
    _checks.check_dtype("values", values, (torch.float32, torch.float64))
    _checks.check_dtype("boxes", boxes, (torch.int64,))
    if values.dim() != 3:
        raise ValueError(f"`values` has shape {tuple(values.shape)}; it takes (N, W, K); add axes of length one")
    if not 2 <= len(shape) <= 4 or min(shape) < 0:
        raise ValueError(f"`shape` is {tuple(shape)}; it takes (C, *S) with one to three spatial axes")
    _checks.check_shape("boxes", boxes, (values.shape[1], len(shape), 2), "(W, 1 + len(S), 2)")
    if not boxes.is_cpu:
        _checks.check_device("boxes", boxes, values.device, "values")
    _checks.check_boxes(boxes, tuple(shape))

"""cam_reduce: fold activations and channel weights into class activation maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced


def not_two_axes(activations: Tensor, *_: object) -> str | None:
    """Refuses signals and volumes: only the reference resizes them."""
    axes = activations.dim() - 2
    return None if axes == 2 else f"`activations` has {axes} spatial axes, not two"


def maps_too_long(activations: Tensor, _weights: Tensor, _relu: bool, out: Tensor) -> str | None:
    """Refuses maps whose elements, and their places among those of a grid, a kernel cannot count with 32 bits."""
    long = out.shape[2:].numel() >= 2**30 or activations.shape[2:].numel() >= 2**30
    steps = (2 * extent * count for extent, count in zip(out.shape[2:], activations.shape[2:], strict=True))
    return "a map has 2^30 elements, or places that take 30 bits, or more" if long or max(steps) >= 2**30 else None


op = Op("cam_reduce", lazily(f"{__name__}.reference", "cam_reduce"))
op.offer("cpp", compiled("cam_reduce"), unless=(no_library, not_on_cpu, not_two_axes))
op.offer(
    "triton", lazily(f"{__name__}.triton", "cam_reduce"), unless=(no_triton, not_on_cuda, not_two_axes, maps_too_long)
)


def _like_result(
    activations: Tensor, weights: Tensor, *, relu: bool = True, size: Sequence[int] | None = None
) -> Tensor:
    del relu
    extents = activations.shape[2:] if size is None else size
    return activations.new_empty((*weights.shape[:2], *extents), dtype=_dtype(activations, weights))


def _dtype(activations: Tensor, weights: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (activations.dtype, weights.dtype) else torch.float32


@traced("(Tensor activations, Tensor weights, *, bool relu=True, SymInt[]? size=None) -> Tensor", fake=_like_result)
def cam_reduce(
    activations: Tensor, weights: Tensor, *, relu: bool = True, size: tuple[int, ...] | None = None
) -> Tensor:
    """Returns the sum over channels of weight times activation, rectified if asked, then resized.

    Resizing is linear in each spatial axis with `align_corners=False`. Gradients do not pass.

    Args:
        activations: (N, C, *S), one to three spatial axes, any strides; float16, bfloat16, float32 or
            float64.
        weights: (N, K, C), one of these dtypes: K maps per sample.
        relu: whether negative sums become 0, before resizing.
        size: spatial extents of the result; None keeps those of `activations`.

    Returns:
        (N, K, *size), dense. Its dtype, in which sums are taken, is float64 when either argument is, else
        float32.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape or a device does not fit.
    """
    grid = tuple(activations.shape[2:])
    size = grid if size is None else tuple(size)
    _check(activations, weights, size)
    dtype = _dtype(activations, weights)
    out = torch.empty((*weights.shape[:2], *size), dtype=dtype, device=activations.device)
    op(activations, weights.to(dtype).contiguous(), bool(relu), out)
    return out


def _check(activations: Tensor, weights: Tensor, size: tuple[int, ...]) -> None:
    _checks.check_axes("activations", activations)
    _checks.check_dtype("activations", activations, _checks.FLOATING)
    _checks.check_dtype("weights", weights, _checks.FLOATING)
    samples, channels, *grid = activations.shape
    targets = weights.shape[1] if weights.dim() == 3 else 0
    _checks.check_shape("weights", weights, (samples, targets, channels), "(N, K, C)")
    _checks.check_device("weights", weights, activations.device, "activations")
    if len(size) != len(grid) or min(size) < 0:
        raise ValueError(f"`size` is {size}; it takes one extent per spatial axis of `activations`, {tuple(grid)}")
    if 0 in grid and size != tuple(grid):
        raise ValueError(f"`activations` has the empty grid {tuple(grid)}; only `size=None` fits it")

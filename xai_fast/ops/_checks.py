"""What the ops ask of their arguments, said the same way everywhere: what came, what fits, what to do."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from xai_fast.ops._memory import check_strided, resolved

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_dtype(name: str, value: Tensor, fits: tuple[torch.dtype, ...]) -> None:
    """Raises TypeError unless `value` is a tensor whose dtype is one of `fits`, with a place for every element."""
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` is a {type(value).__name__}; it takes a tensor")
    if value.layout is not torch.strided:
        check_strided(name, value)
    if value.dtype not in fits:
        wanted = " or ".join(str(dtype) for dtype in fits)
        raise TypeError(f"`{name}` is {value.dtype}; it takes {wanted}; convert it with `.to(...)`")


def check_shape(name: str, value: Tensor, fits: tuple[int, ...], meaning: str) -> None:
    """Raises ValueError unless `value` has exactly the shape `fits`, described by `meaning`."""
    if value.shape != fits:
        raise ValueError(f"`{name}` has shape {tuple(value.shape)}; it takes {meaning} = {fits}")


def check_axes(name: str, value: Tensor) -> None:
    """Raises ValueError unless `value` is (N, C, *S) with one to three spatial axes."""
    if not 3 <= value.dim() <= 5:
        raise ValueError(
            f"`{name}` has shape {tuple(value.shape)}; it takes (N, C, *S) with one to three spatial axes; "
            "add or flatten axes"
        )


def check_device(name: str, value: Tensor, device: torch.device, whose: str) -> None:
    """Raises ValueError unless `value` is on `device`, where the argument `whose` is."""
    if value.device != device:
        raise ValueError(f"`{name}` is on {value.device} but `{whose}` is on {device}; move one of them")


def check_dense(name: str, value: Tensor) -> None:
    """Raises ValueError unless `value` fills its memory without gaps, in one of torch's own layouts."""
    layouts = {4: (torch.channels_last,), 5: (torch.channels_last_3d,)}.get(value.dim(), ())
    if not (value.is_contiguous() or any(value.is_contiguous(memory_format=layout) for layout in layouts)):
        raise ValueError(
            f"`{name}` has strides {value.stride()}; it takes dense memory, contiguous or with channels last; "
            "copy it with `.contiguous()`"
        )


def broadcast(name: str, value: Tensor, inputs: Tensor) -> Tensor:
    """`value` as a view of the shape of `inputs`; raises ValueError where it does not broadcast to that."""
    pairs = zip(reversed(value.shape), reversed(inputs.shape), strict=False)
    if value.dim() > inputs.dim() or any(extent not in (1, wanted) for extent, wanted in pairs):
        raise ValueError(
            f"`{name}` has shape {tuple(value.shape)}; it takes one that broadcasts to that of "
            f"`inputs`, {tuple(inputs.shape)}, such as (C, 1, 1) for one value per channel"
        )
    return value.expand_as(inputs)


def check_boxes(boxes: Tensor, extents: tuple[int, ...]) -> None:
    """Raises ValueError unless every box lies within `extents`; only memory of the CPU is read."""
    if not boxes.is_cpu:
        return
    values = resolved(boxes).numpy().view(np.uint64)  # a negative value is far beyond any extent
    if not ((values[..., 0] <= values[..., 1]) & (values[..., 1] <= _as_array(extents))).all():
        raise ValueError(
            f"`boxes` has a box outside the extents {extents}; each axis takes 0 <= start <= stop <= extent, "
            "channels first; cut windows at the border"
        )


@functools.lru_cache(maxsize=64)
def _as_array(extents: tuple[int, ...]) -> np.ndarray:
    return np.array(extents, dtype=np.uint64)


def check_indices(name: str, value: Tensor, count: int, whose: str) -> None:
    """Raises ValueError unless the values are rows of `whose`, which has `count`; see `check_boxes`."""
    if not value.is_cpu:
        return
    values = resolved(value).tolist()
    if values and not 0 <= min(values) <= max(values) < count:
        raise ValueError(
            f"`{name}` has values from {min(values)} to {max(values)}; it takes rows of `{whose}`, "
            f"from 0 to {count - 1}"
        )

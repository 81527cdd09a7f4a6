"""relu_change: what a ReLU makes of a change to a kept map, without writing down what it changes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, not_on_cpu
from xai_fast.ops._library import compiled, no_library, older_than
from xai_fast.ops._traced import traced


def not_in_lines(base: Tensor, change: Tensor, _sample: Tensor, _at: Tensor, out: Tensor) -> str | None:
    """Refuses what the kernel does not read in long lines."""
    if base.dtype is not torch.float32 or change.dtype is not torch.bfloat16:
        return f"the maps are {base.dtype} and {change.dtype}, not float32 and bfloat16"
    if not all(value.is_contiguous(memory_format=torch.channels_last) for value in (base, change, out)):
        return "a map is not dense with channels last"
    return None


op = Op("relu_change", lazily(f"{__name__}.reference", "relu_change"), in_place=("change",))
op.offer("cpp", compiled("relu_change"), unless=(no_library, older_than("relu_change"), not_on_cpu, not_in_lines))


@traced("(Tensor base, Tensor change, Tensor sample, Tensor at, Tensor(a!) out) -> ()")
def relu_change(base: Tensor, change: Tensor, sample: Tensor, at: Tensor, out: Tensor) -> Tensor:
    """Fills row m of `out` with relu(b + change[m]) - relu(b), b the part of `base[sample[m]]` that begins at `at[m]`.

    Computed in the dtype of `base` and rounded once. NaN stays NaN.

    Args:
        base: (N, C, H, W) float32 or float64, any strides: maps as they were kept.
        change: (M, C, h, w) bfloat16 or float16, any strides: how row m differs from its map there.
        sample: LongTensor (M,) with values in [0, N): which map each row is a variant of.
        at: LongTensor (M, 2), the position of the first element of each part, which lies within the map.
        out: (M, C, h, w), of the dtype of `change`, any memory layout. Gradients do not pass. It may be `change`.

    `base`, `change` and `out` are on one device; `sample` and `at` there or on the CPU.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    _checks.check_dtype("base", base, (torch.float32, torch.float64))
    _checks.check_dtype("change", change, (torch.bfloat16, torch.float16))
    if base.dim() != 4 or change.dim() != 4 or change.shape[1] != base.shape[1]:
        raise ValueError(
            f"`change` has shape {tuple(change.shape)} and `base` {tuple(base.shape)}; they take (M, C, h, w) and "
            "(N, C, H, W)"
        )
    _checks.check_dtype("out", out, (change.dtype,))
    _checks.check_shape("out", out, tuple(change.shape), "the shape of `change`")
    for name, value, shape in (("sample", sample, (len(change),)), ("at", at, (len(change), 2))):
        _checks.check_dtype(name, value, (torch.int64,))
        _checks.check_shape(name, value, shape, "(M,)" if name == "sample" else "(M, 2)")
    for name, value in {"change": change, "out": out}.items():
        _checks.check_device(name, value, base.device, "base")
    _checks.check_indices("sample", sample, len(base), "base")
    _check_places(at, change, base)
    if not base.is_cpu:
        sample, at = sample.to(base.device), at.to(base.device)
    op(base, change, sample.contiguous(), at.contiguous(), out)
    increment_version(out)
    return out


def _check_places(at: Tensor, change: Tensor, base: Tensor) -> None:
    """On the CPU only, as with indices: on another device the caller vouches for them."""
    if not (at.is_cpu and len(at)):
        return
    first, last = at.amin(0).tolist(), at.amax(0).tolist()
    rooms = [have - need for have, need in zip(base.shape[2:], change.shape[2:], strict=True)]
    if min(first) < 0 or any(place > room for place, room in zip(last, rooms, strict=True)):
        size = tuple(change.shape[2:])
        raise ValueError(f"`at` goes from {first} to {last}; parts of {size} begin at [0, 0] to {rooms}")

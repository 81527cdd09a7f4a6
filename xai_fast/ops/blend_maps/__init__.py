"""blend_maps: write inputs multiplied by small maps, resized on the way, straight into a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library, older_than
from xai_fast.ops._traced import traced


def not_two_axes(inputs: Tensor, *_: object) -> str | None:
    """Refuses signals and volumes: only the reference resizes them."""
    axes = inputs.dim() - 2
    return None if axes == 2 else f"`inputs` has {axes} spatial axes, not two"


def rows_too_long(inputs: Tensor, maps: Tensor, *_: object) -> str | None:
    """Refuses rows whose elements, and their places among a map's, a kernel cannot count with 32 bits."""
    long = inputs.shape[1:].numel() >= 2**30 or maps.shape[1:].numel() >= 2**30
    steps = (2 * extent * count for extent, count in zip(inputs.shape[2:], maps.shape[1:], strict=True))
    return "a row has 2^30 elements, or places that take 30 bits, or more" if long or max(steps) >= 2**30 else None


op = Op("blend_maps", lazily(f"{__name__}.reference", "blend_maps"))
op.offer("cpp", compiled("blend_maps"), unless=(no_library, older_than("blend_maps"), not_on_cpu, not_two_axes))
op.offer(
    "triton", lazily(f"{__name__}.triton", "blend_maps"), unless=(no_triton, not_on_cuda, not_two_axes, rows_too_long)
)


@traced("(Tensor inputs, Tensor maps, Tensor sample, Tensor number, Tensor scale, Tensor(a!) out) -> ()")
def blend_maps(inputs: Tensor, maps: Tensor, sample: Tensor, number: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Fills row m of `out` with `inputs[sample[m]] * scale[m] * resized(maps[number[m]])`, the same for all channels.

    Resizing is linear in each spatial axis with `align_corners=False`. Computed in float64 where `inputs` or `maps`
    are, else in float32.

    Args:
        inputs: (N, C, *S), one to three spatial axes, float16, bfloat16, float32 or float64, any strides.
        maps: (B, *s), of the same number of axes, one of these dtypes.
        sample: LongTensor (M,) with values in [0, N): which input each row is made of.
        number: LongTensor (M,) with values in [0, B): by which map.
        scale: float64 (M,).
        out: (M, C, *S), any of the dtypes above and any memory layout whose elements do not overlap, sharing no memory
            with the others. Conversion rounds to nearest even. Gradients do not pass.

    `inputs`, `maps` and `out` are on one device; what has one value per row there or on the CPU. The values of `sample`
    and `number` are checked on the CPU only: on another device the caller vouches for them.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    _check(inputs, maps, sample, number, scale, out)
    wide = torch.float64 in (inputs.dtype, maps.dtype)
    maps = maps.to(torch.float64 if wide else torch.float32).contiguous()
    sample, number, scale = (value.to(out.device).contiguous() for value in (sample, number, scale))
    op(inputs, maps, sample, number, scale, out)
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(inputs: Tensor, maps: Tensor, sample: Tensor, number: Tensor, scale: Tensor, out: Tensor) -> None:
    _checks.check_axes("inputs", inputs)
    for name, value in (("inputs", inputs), ("maps", maps), ("out", out)):
        _checks.check_dtype(name, value, _checks.FLOATING)
        _checks.check_device(name, value, out.device, "out")
    _checks.check_dtype("scale", scale, (torch.float64,))
    for name, indices in (("sample", sample), ("number", number)):
        _checks.check_dtype(name, indices, (torch.int64,))
    for name, value in (("sample", sample), ("number", number), ("scale", scale)):
        if not value.is_cpu:
            _checks.check_device(name, value, out.device, "out")
    rows = out.shape[0] if out.dim() else 0
    _checks.check_shape("out", out, (rows, *inputs.shape[1:]), "(M, C, *S)")
    for name, value in (("sample", sample), ("number", number), ("scale", scale)):
        _checks.check_shape(name, value, (rows,), "(M,)")
    if maps.dim() != inputs.dim() - 1 or 0 in maps.shape[1:]:
        raise ValueError(
            f"`maps` has shape {tuple(maps.shape)}; it takes (B, *s) with as many spatial axes as `inputs` "
            f"{tuple(inputs.shape)}, none of them empty"
        )
    _checks.check_indices("sample", sample, inputs.shape[0], "inputs")
    _checks.check_indices("number", number, maps.shape[0], "maps")

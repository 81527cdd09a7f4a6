"""hide_windows: write input variants, each with one box hidden, straight into a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, launched, no_cuda, no_library, not_for_device
from xai_fast.ops._traced import traced


def rows_too_long(*args: Tensor) -> str | None:
    """Refuses rows whose elements a kernel cannot count with 32 bits."""
    return "a row has 2^30 elements or more" if args[-1].shape[1:].numel() >= 2**30 else None


op = Op("hide_windows", lazily(f"{__name__}.reference", "hide_windows"))
op.offer("cpp", compiled("hide_windows"), unless=(no_library, not_on_cpu))
op.offer("cuda", launched("hide_windows"), unless=(no_cuda, not_for_device))
op.offer("triton", lazily(f"{__name__}.triton", "hide_windows"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced("(Tensor inputs, Tensor baseline, Tensor sample, Tensor boxes, Tensor(a!) out) -> ()")
def hide_windows(inputs: Tensor, baseline: Tensor, sample: Tensor, boxes: Tensor, out: Tensor) -> Tensor:
    """Fills row m of `out` with `inputs[sample[m]]`, and with `baseline[sample[m]]` inside `boxes[m]`.

    Args:
        inputs: (N, C, *S), one to three spatial axes, float16, bfloat16, float32 or float64, any strides.
        baseline: broadcastable to `inputs`, of its dtype; expanded views are read as they are.
        sample: LongTensor (M,) with values in [0, N): which input each row is a variant of.
        boxes: LongTensor (M, 1 + len(S), 2): half-open [start, stop) per axis, channels first, inside the
            extents; start == stop hides nothing.
        out: (M, C, *S), any of the dtypes above and any memory layout whose elements do not overlap, sharing
            no memory with the others. Conversion rounds to nearest even. Gradients do not pass.

    `inputs`, `baseline` and `out` are on one device; `sample` and `boxes` there or on the CPU. Their values
    are checked on the CPU only: on another device the caller vouches for them.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    _check(inputs, baseline, sample, boxes, out)
    baseline = baseline if baseline.shape == inputs.shape else _checks.broadcast("baseline", baseline, inputs)
    sample = sample.to(out.device).contiguous()
    boxes = boxes.to(out.device).contiguous()
    op(inputs, baseline, sample, boxes, out)
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(inputs: Tensor, baseline: Tensor, sample: Tensor, boxes: Tensor, out: Tensor) -> None:
    _checks.check_axes("inputs", inputs)
    _checks.check_dtype("inputs", inputs, _checks.FLOATING)
    _checks.check_dtype("baseline", baseline, (inputs.dtype,))
    _checks.check_dtype("out", out, _checks.FLOATING)
    for name, indices in (("sample", sample), ("boxes", boxes)):
        _checks.check_dtype(name, indices, (torch.int64,))
        if not indices.is_cpu:
            _checks.check_device(name, indices, out.device, "out")
    _checks.check_device("inputs", inputs, out.device, "out")
    _checks.check_device("baseline", baseline, out.device, "out")

    extents = tuple(inputs.shape[1:])
    rows = out.shape[0] if out.dim() else 0
    _checks.check_shape("out", out, (rows, *extents), "(M, C, *S)")
    _checks.check_shape("sample", sample, (rows,), "(M,)")
    _checks.check_shape("boxes", boxes, (rows, len(extents), 2), "(M, 1 + len(S), 2)")
    _checks.check_indices("sample", sample, inputs.shape[0], "inputs")
    _checks.check_boxes(boxes, extents)

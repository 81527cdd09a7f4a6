"""hide_segments: write input variants, each with some segments hidden, straight into a batch."""

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


op = Op("hide_segments", lazily(f"{__name__}.reference", "hide_segments"))
op.offer("cpp", compiled("hide_segments"), unless=(no_library, not_on_cpu))
op.offer("cuda", launched("hide_segments"), unless=(no_cuda, not_for_device))
op.offer("triton", lazily(f"{__name__}.triton", "hide_segments"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced("(Tensor inputs, Tensor baseline, Tensor labels, Tensor sample, Tensor keep, Tensor(a!) out) -> ()")
def hide_segments(
    inputs: Tensor, baseline: Tensor, labels: Tensor, sample: Tensor, keep: Tensor, out: Tensor
) -> Tensor:
    """Fills row m of `out` with `inputs[sample[m]]`, and with the baseline where a segment is not kept.

    Args:
        inputs: (N, C, *S), one to three spatial axes, float16, bfloat16, float32 or float64, any strides.
        baseline: broadcastable to `inputs`, of its dtype; expanded views are read as they are.
        labels: LongTensor (N, *S), expanded views included: the segment of each position, from 0 to K - 1; negative
            where there is none, which is never hidden.
        sample: LongTensor (M,) with values in [0, N): which input each row is a variant of.
        keep: BoolTensor (M, K): which segments each row shows.
        out: (M, C, *S), any of the floating dtypes above and any memory layout whose elements do not overlap, sharing
            no memory with the others. Conversion rounds to nearest even. Gradients do not pass.

    `inputs`, `baseline`, `labels` and `out` are on one device; `sample` and `keep` there or on the CPU. The values of
    `sample` and `labels` are checked on the CPU only: on another device the caller vouches for them.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    _check(inputs, baseline, labels, sample, keep, out)
    baseline = baseline if baseline.shape == inputs.shape else _checks.broadcast("baseline", baseline, inputs)
    by_channel = labels[:, None].expand(-1, *inputs.shape[1:])
    sample, keep = sample.to(out.device).contiguous(), keep.to(out.device).contiguous()
    op(inputs, baseline, by_channel, sample, keep, out)
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(inputs: Tensor, baseline: Tensor, labels: Tensor, sample: Tensor, keep: Tensor, out: Tensor) -> None:
    _checks.check_axes("inputs", inputs)
    _checks.check_dtype("inputs", inputs, _checks.FLOATING)
    _checks.check_dtype("baseline", baseline, (inputs.dtype,))
    _checks.check_dtype("labels", labels, (torch.int64,))
    _checks.check_dtype("sample", sample, (torch.int64,))
    _checks.check_dtype("keep", keep, (torch.bool,))
    _checks.check_dtype("out", out, _checks.FLOATING)
    for name, value in {"inputs": inputs, "baseline": baseline, "labels": labels}.items():
        _checks.check_device(name, value, out.device, "out")
    for name, value in {"sample": sample, "keep": keep}.items():
        if not value.is_cpu:
            _checks.check_device(name, value, out.device, "out")
    rows = out.shape[0] if out.dim() else 0
    segments = keep.shape[1] if keep.dim() == 2 else 0
    _checks.check_shape("out", out, (rows, *inputs.shape[1:]), "(M, C, *S)")
    _checks.check_shape("labels", labels, (inputs.shape[0], *inputs.shape[2:]), "(N, *S)")
    _checks.check_shape("sample", sample, (rows,), "(M,)")
    _checks.check_shape("keep", keep, (rows, segments), "(M, K)")
    _checks.check_indices("sample", sample, inputs.shape[0], "inputs")
    if labels.is_cpu and sample.is_cpu and rows and labels.numel():
        last = int(labels[sample.unique()].amax())
        if last >= segments:
            raise ValueError(
                f"`labels` go up to {last} but `keep` has {segments} columns; it takes one per segment, which are "
                "numbered from 0"
            )

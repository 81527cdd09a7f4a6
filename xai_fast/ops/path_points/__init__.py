"""path_points: write points on straight paths from baselines to inputs straight into a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced


def rows_too_long(
    _inputs: Tensor, _baseline: Tensor, _sample: Tensor, _reference: Tensor, _alpha: Tensor, out: Tensor
) -> str | None:
    """Refuses rows whose elements a kernel cannot count with 32 bits."""
    return "a row has 2^30 elements or more" if out.shape[1:].numel() >= 2**30 else None


op = Op("path_points", lazily(f"{__name__}.reference", "path_points"), in_place=("inputs",))
op.offer("cpp", compiled("path_points"), unless=(no_library, not_on_cpu))
op.offer("triton", lazily(f"{__name__}.triton", "path_points"), unless=(no_triton, not_on_cuda, rows_too_long))


@traced("(Tensor inputs, Tensor baseline, Tensor sample, Tensor reference, Tensor alpha, Tensor(a!) out) -> ()")
def path_points(
    inputs: Tensor, baseline: Tensor, sample: Tensor, reference: Tensor, alpha: Tensor, out: Tensor
) -> Tensor:
    """Fills row m of `out` with `b + alpha[m] * (x - b)`, x = `inputs[sample[m]]` and b = `baseline[reference[m]]`.

    For alpha below 0.5 that is computed from b, otherwise as x + (1 - alpha) * (b - x): where alpha is 0 or 1, and
    where x and b are equal, the row is exact. In float64 where `inputs` are, else in float32.

    Args:
        inputs: (N, C, *S), one to three spatial axes, float16, bfloat16, float32 or float64, any strides.
        baseline: (B, C, *S), of the dtype of `inputs`; expanded views are read as they are.
        sample: LongTensor (M,) with values in [0, N): the end of each row's path.
        reference: LongTensor (M,) with values in [0, B): its start.
        alpha: float64 (M,), the share of the way, usually in [0, 1].
        out: (M, C, *S), any of the dtypes above and any memory layout whose elements do not overlap. Conversion
            rounds to nearest even. Gradients do not pass. It may be `inputs` itself when `sample` is 0, 1, 2, ...,
            and shares no memory with the others.

    `inputs`, `baseline` and `out` are on one device; what has one value per row there or on the CPU. The values of
    `sample` and `reference` are checked on the CPU only: on another device the caller vouches for them.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a device or a value does not fit.
    """
    _check(inputs, baseline, sample, reference, alpha, out)
    sample, reference, alpha = (value.to(out.device).contiguous() for value in (sample, reference, alpha))
    op(inputs, baseline, sample, reference, alpha, out)
    increment_version(out)  # kernels write behind autograd's back: a graph that saved `out` must notice
    return out


def _check(inputs: Tensor, baseline: Tensor, sample: Tensor, reference: Tensor, alpha: Tensor, out: Tensor) -> None:
    _checks.check_axes("inputs", inputs)
    _checks.check_dtype("inputs", inputs, _checks.FLOATING)
    _checks.check_dtype("baseline", baseline, (inputs.dtype,))
    _checks.check_dtype("out", out, _checks.FLOATING)
    _checks.check_device("inputs", inputs, out.device, "out")
    _checks.check_device("baseline", baseline, out.device, "out")
    rows, starts = (value.shape[0] if value.dim() else 0 for value in (out, baseline))
    _checks.check_shape("out", out, (rows, *inputs.shape[1:]), "(M, C, *S)")
    _checks.check_shape("baseline", baseline, (starts, *inputs.shape[1:]), "(B, C, *S)")
    for name, values in {"sample": sample, "reference": reference, "alpha": alpha}.items():
        _checks.check_dtype(name, values, (torch.float64 if name == "alpha" else torch.int64,))
        _checks.check_shape(name, values, (rows,), "(M,)")
        if not values.is_cpu:
            _checks.check_device(name, values, out.device, "out")
    _checks.check_indices("sample", sample, inputs.shape[0], "inputs")
    _checks.check_indices("reference", reference, starts, "baseline")
    _check_memory(inputs, sample, out)


def _check_memory(inputs: Tensor, sample: Tensor, out: Tensor) -> None:
    if out is inputs and sample.is_cpu and sample.tolist() != list(range(len(sample))):
        raise ValueError("`out` is `inputs` but `sample` does not count its rows; rows would read what others wrote")

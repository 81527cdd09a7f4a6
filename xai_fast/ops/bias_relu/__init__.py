"""bias_relu: what follows a convolution, in one pass over memory: a bias per channel, perhaps another map, a ReLU."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._checks import FLOATING
from xai_fast.ops._dispatch import Op, lazily, no_triton, not_on_cpu, not_on_cuda
from xai_fast.ops._library import compiled, no_library, older_than
from xai_fast.ops._traced import traced


def not_alike(values: Tensor, bias: Tensor, other: Tensor | None, out: Tensor) -> str | None:
    """Refuses maps that do not lie in memory one like the other, without gaps, channels first or last."""
    dense = values.is_contiguous() or _channels_last(values)
    if not dense or any(each is not None and each.stride() != values.stride() for each in (other, out)):
        return "maps are not dense, or laid out differently"
    return None if bias.is_contiguous() else "`bias` is not contiguous"


def _channels_last(values: Tensor) -> bool:
    return values.movedim(1, -1).is_contiguous()


op = Op("bias_relu", lazily(f"{__name__}.reference", "bias_relu"), in_place=("values", "other"))
op.offer("cpp", compiled("bias_relu"), unless=(no_library, older_than("bias_relu"), not_on_cpu, not_alike))
op.offer("triton", lazily(f"{__name__}.triton", "bias_relu"), unless=(no_triton, not_on_cuda, not_alike))


@traced("(Tensor values, Tensor bias, Tensor? other, Tensor(a!) out) -> ()")
def bias_relu(values: Tensor, bias: Tensor, other: Tensor | None, out: Tensor) -> Tensor:
    """Fills `out` with relu(values + bias + other), the bias one number per channel.

    Added up in float32 (float64 stays float64) and rounded once. NaN stays NaN.

    Args:
        values: (M, C, *S) float32, float64, bfloat16 or float16, any strides.
        bias: (C,), of that dtype.
        other: as `values`, or None.
        out: as `values`, any memory layout; it may be `values` or `other`. Gradients do not pass.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape or a device does not fit.
    """
    _checks.check_dtype("values", values, FLOATING)
    if values.dim() < 2:
        raise ValueError(f"`values` has shape {tuple(values.shape)}; it takes (M, C, *S)")
    _checks.check_shape("bias", bias, (values.shape[1],), "(C,)")
    for name, value in {"bias": bias, "other": other, "out": out}.items():
        if value is None:
            continue
        _checks.check_dtype(name, value, (values.dtype,))
        _checks.check_device(name, value, values.device, "values")
        if name != "bias":
            _checks.check_shape(name, value, tuple(values.shape), "the shape of `values`")
    op(values, bias, other, out)
    increment_version(out)
    return out

"""pass_bits: the elements of a gradient whose bits are set, and zero elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, not_on_cpu
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced

op = Op("pass_bits", lazily(f"{__name__}.reference", "pass_bits"), in_place=("gradient",))
op.offer("cpp", compiled("pass_bits"), unless=(no_library, not_on_cpu))


@traced("(Tensor gradient, Tensor bits, Tensor(a!) out) -> ()")
def pass_bits(gradient: Tensor, bits: Tensor, out: Tensor) -> Tensor:
    """Fills `out` with the gradient where `bits` are set and with 0 elsewhere: the backward of a ReLU.

    Args:
        gradient: float32 or bfloat16, dense: contiguous, or with channels last, as the values were that `sign_bits` was
            given.
        bits: LongTensor (ceil(elements / 64),), see `sign_bits`.
        out: of the dtype, shape and strides of `gradient`; it may be `gradient`. Gradients do not pass.

    Returns:
        `out`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, a layout or a device does not fit.
    """
    _checks.check_dtype("gradient", gradient, (torch.float32, torch.bfloat16))
    _checks.check_dtype("bits", bits, (torch.int64,))
    _checks.check_dtype("out", out, (gradient.dtype,))
    _checks.check_dense("gradient", gradient)
    _checks.check_shape("bits", bits, (-(-gradient.numel() // 64),), "(ceil(elements / 64),)")
    _checks.check_shape("out", out, tuple(gradient.shape), "the shape of `gradient`")
    _checks.check_device("bits", bits, gradient.device, "gradient")
    _checks.check_device("out", out, gradient.device, "gradient")
    if out.stride() != gradient.stride():
        raise ValueError(f"`out` has strides {out.stride()}; it takes those of `gradient`, {gradient.stride()}")
    op(gradient, bits.contiguous(), out)
    increment_version(out)
    return out

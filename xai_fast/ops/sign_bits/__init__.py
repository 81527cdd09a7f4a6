"""sign_bits: one bit per element, which tells whether a ReLU let it through."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.ops import _checks
from xai_fast.ops._dispatch import Op, lazily, not_on_cpu
from xai_fast.ops._library import compiled, no_library
from xai_fast.ops._traced import traced

op = Op("sign_bits", lazily(f"{__name__}.reference", "sign_bits"), writes=("bits",))
op.offer("cpp", compiled("sign_bits"), unless=(no_library, not_on_cpu))


def _like_result(values: Tensor) -> Tensor:
    return values.new_empty(-(-values.numel() // 64), dtype=torch.int64)


@traced("(Tensor values) -> Tensor", fake=_like_result)
def sign_bits(values: Tensor) -> Tensor:
    """The bits of the elements that are positive or NaN, in the order in which they lie in memory.

    Args:
        values: float32 or bfloat16, dense: contiguous, or with channels last.

    Returns:
        LongTensor (ceil(elements / 64),); element i is bit i % 64 of word i // 64, and bits beyond the last are 0.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: the values are not dense.
    """
    _checks.check_dtype("values", values, (torch.float32, torch.bfloat16))
    _checks.check_dense("values", values)
    bits = torch.empty(-(-values.numel() // 64), dtype=torch.int64, device=values.device)
    op(values, bits)
    return bits

"""Tensors as callers hand them over, made plain: numbers that lie in memory as they are meant."""

from __future__ import annotations

import torch
from torch import Tensor


def plain(name: str, value: Tensor) -> Tensor:
    """The numbers that `value`, the argument `name`, stands for, as a torch.Tensor of its dtype, views allowed.

    A tensor may be negated or conjugated only when it is read, may stand for zeros that have no memory, or be of a
    class that adds something of its own; kernels and other libraries would see what lies in memory.

    Raises:
        TypeError: it has no dense memory: sparse, nested, quantised, on meta, or of a class that keeps its numbers
            elsewhere.
    """
    kinds = type(value).__mro__
    if any("__torch_dispatch__" in vars(kind) for kind in kinds[: kinds.index(Tensor)]):
        raise TypeError(
            f"`{name}` came as {type(value).__name__}, which keeps its numbers elsewhere; give a plain tensor"
        )
    if value.layout is not torch.strided or value.is_nested or value.is_meta or value.is_quantized:
        kind = "on meta, without values" if value.is_meta else "nested" if value.is_nested else f"as {value.dtype}"
        kind = kind if value.layout is torch.strided else f"as {value.layout}"
        raise TypeError(f"`{name}` came {kind}; give a dense tensor with values, such as `{name}.to_dense()`")
    value = value.as_subclass(Tensor)
    return value.clone() if value._is_zerotensor() else value.resolve_neg().resolve_conj()

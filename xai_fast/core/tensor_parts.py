"""What a tensor of any kind consists of: traits that compare, and plain dense tensors whose bytes are all it holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from xai_fast.ops.byte_hash import is_dense

_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_NO_MEMORY = ("meta",)
_QUANTISED = (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4)
_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}

Traits = tuple[Any, ...]


def plain_traits(tensor: Tensor) -> Traits | None:
    """Traits of a tensor whose memory can be read as it is; None where `parts` has to say what it holds."""
    if type(tensor) not in _PLAIN or tensor.layout is not torch.strided or tensor.dtype in _QUANTISED:
        return None
    if tensor.is_neg() or tensor.is_conj() or tensor.device.type in _NO_MEMORY:
        return None
    if not (tensor.is_contiguous() or is_dense(tensor)):
        return None
    return tensor.dtype, tensor.device, tensor.shape, tensor.stride()


@torch.no_grad()
def parts(tensor: Tensor) -> tuple[Traits, list[Tensor]]:
    """Traits of any tensor, and the plain dense tensors that hold its contents; copies where it has none of its own.

    What cannot be read at all is known by identity and version.
    """
    kind = type(tensor)
    try:
        if is_lazy(tensor):
            return (kind, "nothing yet"), []
        if (flatten := getattr(kind, "__tensor_flatten__", None)) is not None:
            return _several(tensor, [getattr(tensor, name) for name in flatten(tensor)[0]])
        if (traits := plain_traits(tensor)) is not None:
            return traits, [tensor]
        if tensor.device.type in _NO_MEMORY:
            return (kind, tensor.dtype, tensor.device, tensor.shape), []
        return _several(tensor, _held(tensor))
    except Exception:  # a tensor of somebody's own may refuse anything
        return (kind, id(tensor), None if tensor.is_inference() else tensor._version), []


def _several(tensor: Tensor, held: list[Tensor]) -> tuple[Traits, list[Tensor]]:
    found = [parts(part) for part in held]
    traits = (type(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.layout, *(own for own, _ in found))
    return traits, [plain for _, own in found for plain in own]


def _held(tensor: Tensor) -> list[Tensor]:
    """The tensors inside one that is no plain one, each of them plainer."""
    if type(tensor) not in _PLAIN:
        return [tensor.as_subclass(Tensor)]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in _COMPRESSED:
        return [getattr(tensor, name)() for name in _COMPRESSED[tensor.layout]]
    if tensor.layout is not torch.strided:
        return [tensor.to_dense()]
    if tensor.dtype in _QUANTISED:
        # What the numbers mean is in scales and offsets, which the values without them do not show.
        return [tensor.int_repr(), tensor.dequantize()]
    if tensor.is_neg() or tensor.is_conj():
        return [tensor.resolve_conj().resolve_neg()]
    once = tensor.detach()
    for axis, stride in enumerate(once.stride()):
        once = once.narrow(axis, 0, min(once.shape[axis], 1)) if stride == 0 else once  # the same element every time
    return [once.contiguous()]

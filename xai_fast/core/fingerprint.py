"""Has the caller's model changed since it was prepared? Answered in a millisecond, without keeping it alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PROBES = 8


class Fingerprint:
    """What a prepared copy depends on: modules, parameters, buffers and hooks, by identity, version and sampled values.

    `.data` edits leave a tensor's version alone, so a few strided elements of every tensor are compared as well. They
    are read through views of the caller's storage, which this object therefore keeps alive (not the modules).
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [weakref.ref(module) for module in model.modules()]
        self._hooks = [_hook_keys(module) for module in model.modules()]
        tensors = list(_tensors(model))
        self._tensors = [(weakref.ref(tensor), _traits(tensor)) for tensor in tensors]
        self._probes = _by_dtype([_probe(tensor) for tensor in tensors])
        self._values = [torch.cat(group) for group in self._probes]

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is still what this fingerprint was taken of."""
        modules = list(model.modules())
        tensors = list(_tensors(model))
        return (
            len(modules) == len(self._modules)
            and len(tensors) == len(self._tensors)
            and all(kept() is module for kept, module in zip(self._modules, modules, strict=True))
            and all(keys == _hook_keys(module) for keys, module in zip(self._hooks, modules, strict=True))
            and all(
                kept() is tensor and traits == _traits(tensor)
                for (kept, traits), tensor in zip(self._tensors, tensors, strict=True)
            )
            and all(_same(torch.cat(group), value) for group, value in zip(self._probes, self._values, strict=True))
        )


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer, once per place where it is used."""
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                yield tensor


def _traits(tensor: Tensor) -> tuple[object, ...]:
    version = None if tensor.is_inference() else tensor._version
    return version, tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape


def _hook_keys(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    # Handles are numbered from one counter and never reused, so the keys identify the hooks.
    return tuple(tuple(getattr(module, kind)) for kind in _HOOKS)


def _probe(tensor: Tensor) -> Tensor:
    """A view of up to eight elements spread over the tensor's storage."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.numel() == 0:
        return torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    available = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    extent = min(tensor.numel(), available)
    count = min(extent, _PROBES)
    return tensor.as_strided((count,), (extent // count,))


def _by_dtype(probes: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for probe in probes:
        groups.setdefault((probe.dtype, probe.device), []).append(probe)
    return list(groups.values())


def _same(left: Tensor, right: Tensor) -> bool:
    # NaN is equal to itself here: a parameter that was NaN and still is has not changed.
    return torch.equal(left, right) or bool(((left == right) | ((left != left) & (right != right))).all())

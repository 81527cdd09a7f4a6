"""Copies of the caller's model: frozen, in eval mode, with the user's hooks on them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copied(model: nn.Module) -> nn.Module:
    """A frozen eval copy of a module. Hooks are shared, not copied: they belong to whoever registered them."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for kind in _HOOKS:
            memo.update((id(hook), hook) for hook in getattr(module, kind).values())
        for value in module.__dict__.values():
            # deepcopy refuses tensors with a history, such as an activation that someone stored on the module.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(unwrapped(model), memo).eval().requires_grad_(False)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside what distributes it over devices or compiles it; its layers' names begin there."""
    while (name := wrapper(model)) is not None:
        inner = model.get_submodule(name)
        if any(getattr(model, kind) for kind in _HOOKS):
            return model  # hooks on the wrapper itself are to fire
        model = inner
    return model


def wrapper(model: nn.Module) -> str | None:
    """The name under which a wrapper holds the module that computes; None for any other module."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "module"
    return "_orig_mod" if isinstance(getattr(model, "_orig_mod", None), nn.Module) else None


def traits(model: nn.Module) -> tuple[torch.dtype | None, torch.device | None]:
    """Dtype and device of the first floating parameter or buffer; None where the model has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return None, None


def has_hooks(model: nn.Module) -> bool:
    """Whether the user has registered hooks anywhere in the model."""
    return any(map(hooked, model.modules()))


def hooked(module: nn.Module) -> bool:
    """Whether the user has registered hooks on this module."""
    return any(getattr(module, kind) for kind in _HOOKS)

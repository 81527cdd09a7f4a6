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
    original = getattr(model, "_orig_mod", model)  # torch.compile's wrapper holds the module it was given
    return copy.deepcopy(original, memo).eval().requires_grad_(False)


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

"""Copies of the caller's model: frozen, in eval mode, with the user's hooks on them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xai_fast.graph.address import wrapper

from .hooks import HOOKS as _HOOKS
from .hooks import rebind


def copied(model: nn.Module) -> nn.Module:
    """A frozen eval copy of a module, with its hooks, which look at the copy and collect where they did."""
    memo: dict[int, Any] = {}
    modules = {id(module): module for module in model.modules()}
    for module in modules.values():
        memo.update((id(getattr(module, kind)), OrderedDict()) for kind in _HOOKS)
        # deepcopy refuses tensors with a history, such as an activation that someone stored on the module.
        memo.update((id(value), value.detach().clone()) for value in _tensors(module.__dict__) if not value.is_leaf)
    made = copy.deepcopy(unwrapped(model), memo)
    memo.pop(id(memo), None)  # what deepcopy keeps alive
    rebind(memo, modules)
    made.eval().requires_grad_(False)
    for module in list(made.modules()):
        if parametrize.is_parametrized(module):
            _settle(module)
    return made


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """The tensors inside dictionaries, lists and tuples, as caches of what a forward has worked out are."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:  # type: ignore[reportUnknownVariableType]
            yield from _tensors(part, depth - 1)


@torch.no_grad()
def _settle(module: nn.Module) -> None:
    """Makes plain weights of those that a module of our copy computes anew in every forward (weight norm and the like).

    Not where they are no constants: where computing them draws random numbers, or twice gives two answers.
    """
    assert isinstance(module.parametrizations, nn.ModuleDict)
    names, draws = list(module.parametrizations), torch.get_rng_state()
    if any(map(hooked, module.parametrizations.modules())):
        return
    try:
        once, twice = ([getattr(module, name).clone() for name in names] for _ in range(2))
    except Exception:  # the user's own formula may refuse; it will say so in the forward
        return
    steady = all(torch.equal(one, two) for one, two in zip(once, twice, strict=True))
    if not steady or not torch.equal(draws, torch.get_rng_state()):
        return
    # Registering a parametrisation put a class of its own in front of the module's.
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in zip(names, once, strict=True):
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside what distributes it over devices or compiles it; its layers' names begin there."""
    while (name := wrapper(model)) is not None:
        inner = model.get_submodule(name)
        if any(getattr(model, kind) for kind in _HOOKS):
            return model  # hooks on the wrapper itself are to fire
        model = inner
    return model


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

"""Copies of the caller's model: frozen, in eval mode, with the user's hooks on them; weights their own, or borrowed."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xai_fast.graph.address import wrapper

from .atoms import is_atom
from .hooks import HOOKS as _HOOKS
from .hooks import rebind
from .uncompiled import compiled_functions, uncompile


def copied(model: nn.Module, *, borrowing: bool = False) -> nn.Module:
    """A frozen eval copy of a module, with its hooks, which look at the copy and collect where they did.

    Args:
        model: the caller's.
        borrowing: whether the copy's parameters lie in the memory of the caller's, which it must not write to.
    """
    memo: dict[int, Any] = {}
    modules = {id(module): module for module in model.modules()}
    for module in modules.values():
        memo.update((id(getattr(module, kind)), OrderedDict()) for kind in _HOOKS)
        # deepcopy refuses tensors with a history, such as an activation that someone stored on the module.
        memo.update((id(value), value.detach().clone()) for value in _tensors(module.__dict__) if not value.is_leaf)
    if borrowing:
        plain = [weight for weight in model.parameters() if type(weight) is nn.Parameter]
        memo.update((id(weight), nn.Parameter(weight.detach(), requires_grad=False)) for weight in plain)
    for module in modules.values():
        if not module._modules and _is_copied_by_parts(type(module)):
            _copy_by_parts(module, memo)
    for value, plain in compiled_functions(modules.values()):
        memo[id(value)] = copy.deepcopy(plain, memo)  # a method is then one of the copy
    made = copy.deepcopy(unwrapped(model), memo)
    memo.pop(id(memo), None)  # what deepcopy keeps alive
    rebind(memo, modules)
    uncompile(made)
    made.eval().requires_grad_(False)
    for module in list(made.modules()):
        if parametrize.is_parametrized(module):
            _settle(module)
    return made


@functools.cache
def _is_copied_by_parts(kind: type[nn.Module]) -> bool:
    """Whether deepcopy would do nothing else with a module of this class than copy what it holds."""
    own: Any = kind  # `__getstate__` and `__setstate__` are inherited or the class's own
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and not hasattr(kind, "__deepcopy__")
        and own.__getstate__ is nn.Module.__getstate__
        and own.__setstate__.__module__.startswith("torch.nn.")
    )


def _copy_by_parts(module: nn.Module, memo: dict[int, Any]) -> None:
    """Copies a module without children into `memo`, in a tenth of the time that deepcopy takes for its empty tables."""
    made = memo[id(module)] = type(module).__new__(type(module))
    state = vars(made)
    for name, value in vars(module).items():
        if is_atom(value):
            state[name] = value
        elif type(value) in (dict, OrderedDict, set) and not value:
            state[name] = type(value)()
        else:
            state[name] = copy.deepcopy(value, memo)
    state.pop("_compiled_call_impl", None)


def _tensors(held: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int = 4) -> Iterator[Tensor]:
    """The tensors inside dictionaries, lists and tuples, as caches of what a forward has worked out are."""
    for part in held.values() if isinstance(held, dict) else held:
        if isinstance(part, Tensor):
            yield part
        elif depth and isinstance(part, dict | list | tuple) and part:
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
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return None, None


def has_hooks(model: nn.Module) -> bool:
    """Whether the user has registered hooks anywhere in the model."""
    seen, left = set[int](), [model]
    while left:  # `modules()` takes four times as long, and this is asked in every call
        module = left.pop()
        if id(module) in seen:
            continue
        if hooked(module):
            return True
        seen.add(id(module))
        left += [child for child in module._modules.values() if child is not None]
    return False


def hooked(module: nn.Module) -> bool:
    """Whether the user has registered hooks on this module."""
    for kind in _HOOKS:  # noqa: SIM110 - as a generator it takes twice as long, and every module is asked in every call
        if getattr(module, kind):
            return True
    return False

"""The user's hooks on a copy of their model: what is the model's becomes the copy's, what is the user's stays theirs.

A hook may be a method of an object that the model holds, or close over the model. On a copy it has to look at the copy,
or the copy would hand its activations to the original. What else a hook writes to is the user's, and is shared.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .rebuild import CONTAINERS, DEPTH, Rebuilt, names, parts

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_HOLDERS = (Tensor, types.CellType, *CONTAINERS)
_TENSOR_HOOKS = {
    *("register_hook", "register_prehook", "register_multi_grad_hook", "register_post_accumulate_grad_hook"),
    "saved_tensors_hooks",
}
_CALLS = 6  # as deep as functions that call functions are followed


def on_all_modules() -> tuple[int, ...]:
    """The numbers of the hooks that are registered for every module there is; they are never used again."""
    world = nn.modules.module
    return tuple(key for kind in HOOKS for key in getattr(world, f"_global{kind}"))


def rebind(copies: Mapping[int, Any], originals: Mapping[int, nn.Module]) -> None:
    """Hangs the hooks of a model on its copy, which has none yet, so that they look at the copy.

    So do functions that its modules keep, such as a forward that closes over the model.

    Args:
        copies: by the id of an object of the model's, its copy.
        originals: by id, the model's modules.
    """
    rebuilt = Rebuilt(copies, fresh=False)
    for number, module in originals.items():
        copy = copies.get(number)
        if not isinstance(copy, nn.Module) or copy is module:
            continue
        for kind in HOOKS:
            getattr(copy, kind).update((key, rebuilt(hook)) for key, hook in getattr(module, kind).items())
        for name, value in list(vars(copy).items()):
            if isinstance(value, types.FunctionType):
                vars(copy)[name] = rebuilt(value)


@contextmanager
def shadowed(module: nn.Module) -> Iterator[None]:
    """Our copy's forward hooks fire, but into copies of what they collect in: for runs that nobody asked for."""
    kept = [(getattr(m, kind), dict(getattr(m, kind))) for m in module.modules() for kind in HOOKS[:2]]
    if not any(hooks for _, hooks in kept):
        yield
        return
    rebuilt = Rebuilt(_belongings(module), fresh=True)
    try:
        for live, hooks in kept:
            live.update((key, rebuilt(hook)) for key, hook in hooks.items())
        yield
    finally:
        for live, hooks in kept:
            live.clear()
            live.update(hooks)


@contextmanager
def unhooked(module: nn.Module) -> Iterator[None]:
    """No hook of our copy's fires."""
    kept = [(getattr(m, kind), dict(getattr(m, kind))) for m in module.modules() for kind in HOOKS]
    try:
        for live, _ in kept:
            live.clear()
        yield
    finally:
        for live, hooks in kept:
            live.update(hooks)


def _belongings(model: nn.Module) -> dict[int, Any]:
    """By id, what a forward of the model can read: what its modules hold, and what their forwards close over and name.

    What hooks write there is no collection, and reaches the forward.
    """
    found: dict[int, Any] = {id(module): module for module in model.modules()}

    def walk(value: Any, depth: int) -> None:
        if depth == 0 or id(value) in found:
            return
        if not isinstance(value, _FUNCTIONS) and (isinstance(value, _HOLDERS) or hasattr(value, "__dict__")):
            found[id(value)] = value
        for part in parts(value):
            walk(part, depth - 1)

    for module in model.modules():
        held = [value for name, value in vars(module).items() if not name.endswith("_hooks")]
        for function in _methods(type(module)).values():
            held += [*names(function).values(), *(function.__closure__ or ())]
        for value in held:
            walk(value, DEPTH)
    return found


def tensor_hooks_in(model: nn.Module) -> str | None:
    """The function, run by the model's forward, that hooks tensors: their gradients are not those of the operations.

    Found in the code, because a forward may hook nothing but what requires a gradient. None where there is none.
    """
    seen: set[int] = set()

    def search(function: Any, methods: dict[str, types.FunctionType], depth: int) -> str | None:
        function = getattr(function, "__func__", function)
        if isinstance(function, functools.partial):
            function = function.func
        if not isinstance(function, types.FunctionType) or depth == 0 or id(function) in seen:
            return None
        seen.add(id(function))
        code = _names_in(function.__code__)
        if code & _TENSOR_HOOKS:
            return function.__qualname__
        called = [methods.get(name) or function.__globals__.get(name) for name in code]
        inside = [part for cell in function.__closure__ or () for part in parts(cell)]
        found = (search(part, methods, depth - 1) for part in (*called, *inside) if not _of_torch(part))
        return next((name for name in found if name), None)

    for module in model.modules():
        methods = _methods(type(module))
        own = [value for value in vars(module).values() if isinstance(value, _FUNCTIONS)]
        for function in (type(module).forward, *own):
            if not _of_torch(function) and (name := search(function, methods, _CALLS)):
                return name
    return None


def _names_in(code: types.CodeType) -> set[str]:
    """The names that code uses, also inside functions that it makes."""
    inside = [_names_in(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inside)


def _of_torch(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("torch.")


@functools.cache
def _methods(kind: type) -> dict[str, types.FunctionType]:
    """The methods of a module's class that are not torch's."""
    classes = [base for base in reversed(kind.__mro__) if not base.__module__.startswith(("torch.", "builtins"))]
    return {name: part for base in classes for name, part in vars(base).items() if isinstance(part, types.FunctionType)}

"""The torch modules that a function holds: bound to it, around it, in globals that it names, in attributes."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

_DEEPEST = 4  # functions and objects around functions and objects
_MOST = 500  # that are looked at
_LONGEST = 50  # what a container may hold to be looked into
_ALIEN = ("torch", "numpy", "scipy")  # packages in whose functions no model of the caller's is


def modules_held(function: Any) -> list[nn.Module]:
    """The modules that a function holds, each once, without those in them; a module is its own."""
    seen: dict[int, Any] = {id(function): function}  # keeps them, so that no other object takes an id
    nearest = [function]
    for _ in range(_DEEPEST):
        further: list[Any] = []
        for value in nearest:
            for other in () if isinstance(value, nn.Module) else _around(value):
                if id(other) not in seen and len(seen) < _MOST:
                    seen[id(other)] = other
                    further.append(other)
        nearest = further
    return [value for value in seen.values() if isinstance(value, nn.Module)]


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of functions, comprehensions and classes in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


def _around(value: Any) -> Iterator[Any]:
    """What an object has around it."""
    if value is None or isinstance(value, types.ModuleType | type | Tensor | str | bytes | int | float):
        return
    if isinstance(value, list | tuple | dict):
        if len(value) <= _LONGEST:
            yield from value.values() if isinstance(value, dict) else value
        return
    if isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.FunctionType):
        yield from _around_function(value)
    elif isinstance(called := getattr(type(value), "__call__", None), types.FunctionType):  # noqa: B004 - its code
        yield called
    yield from getattr(value, "__dict__", {}).values()


def _around_function(function: types.FunctionType) -> Iterator[Any]:
    if str(function.__module__).partition(".")[0] in _ALIEN:
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    names = {name for code in codes_of(function.__code__) for name in code.co_names}
    yield from (function.__globals__[name] for name in sorted(names) if name in function.__globals__)

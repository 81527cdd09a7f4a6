"""Copies of the caller's model run without `torch.compile`, whose limits and warnings are counted per code object.

What it makes of a function is kept with that function's code, which a copy shares with the caller's model: variants of
other sizes, and hooks of ours, would use up what the caller's own calls may be compiled for, and say so on stderr.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import nn

from xai_fast.graph.address import wrapper

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled_functions(modules: Iterable[nn.Module]) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """The compiled functions that modules hold as attributes, each with what was compiled."""
    for module in modules:
        for value in vars(module).values():
            if (plain := _inside(value)) is not None:
                yield value, plain


def uncompile(made: nn.Module) -> None:
    """Makes a copy, and all that is in it, call what was compiled as it is.

    Args:
        made: ours; `nn.Module.compile` is forgotten by copying.
    """
    for module in list(made.modules()):
        if wrapper(module) == "_orig_mod" and "dynamo_ctx" in vars(module):
            # With this it is also copied on: what compiles is made anew from its context.
            module.dynamo_ctx = _as_it_is  # type: ignore[assignment]
            module._initialize()  # type: ignore[operator]
        for name, plain in _compiled_methods(type(module)):
            vars(module).setdefault(name, MethodType(plain, module))


@contextmanager
def running_plainly(model: nn.Module) -> Iterator[None]:
    """The caller's own model runs uncompiled inside: what was compiled before knows no hooks of ours."""
    changed = [(vars(module), name, plain) for module in model.modules() for name, plain in _plain_attributes(module)]
    before = [held.get(name, _ABSENT) for held, name, _ in changed]
    try:
        for held, name, plain in changed:
            held[name] = plain
        yield
    finally:
        for (held, name, _), value in zip(changed, before, strict=True):
            if value is _ABSENT:
                held.pop(name, None)
            else:
                held[name] = value


def _plain_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """The attributes under which a module has something compiled, each with what was compiled."""
    held = vars(module)
    found: list[tuple[str, Any]] = [(n, plain) for n, value in held.items() if (plain := _inside(value)) is not None]
    found += [(name, MethodType(plain, module)) for name, plain in _compiled_methods(type(module)) if name not in held]
    if held.get("_compiled_call_impl") is not None:  # of `nn.Module.compile`
        found.append(("_compiled_call_impl", None))
    return found


_ABSENT = object()


def never_compiled(function: Function) -> Function:
    """Keeps torch.compile off a function that runs inside of what the caller has compiled; imports nothing for it."""
    frames = torch._C._dynamo.eval_frame  # type: ignore[attr-defined]
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@functools.cache
def _compiled_methods(kind: type[nn.Module]) -> tuple[tuple[str, Callable[..., Any]], ...]:
    """The methods that a class defines behind `@torch.compile`, as they were written."""
    names = {name for each in kind.__mro__ if each is not nn.Module for name in vars(each)}
    found = ((name, _inside(_held(kind, name))) for name in sorted(names))
    return tuple((name, plain) for name, plain in found if plain is not None)


def _held(kind: type, name: str) -> Any:
    """What a class holds under a name, without binding it."""
    return next(vars(each)[name] for each in kind.__mro__ if name in vars(each))


def _inside(value: Any) -> Callable[..., Any] | None:
    """What was compiled, of a function that `torch.compile` made."""
    return getattr(value, "_torchdynamo_orig_callable", None) if isinstance(value, FunctionType) else None

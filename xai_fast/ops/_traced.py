"""Ops inside of compiled graphs: each is registered with torch, and who traces a graph meets that instead of a kernel.

Outside of tracing an op is the plain Python function that it looks like: torch's dispatcher costs more than many of
these calls take.
"""

from __future__ import annotations

import atexit
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

_REGISTERED = torch.library.Library("xai_fast", "FRAGMENT")
atexit.register(lambda kept: None, _REGISTERED)  # what is registered goes with this object, which outlives the module
_WORD = 2**64

P = ParamSpec("P")
R = TypeVar("R")


def traced(
    schema: str,
    *,
    returns: tuple[str, ...] = ("out",),
    fake: Callable[..., Any] | None = None,
    words: tuple[str, ...] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers an op's public function as `torch.ops.xai_fast.NAME`, which graphs keep as one node.

    Args:
        schema: its arguments and results as torch writes them, those that it writes marked.
        returns: names of the arguments that the function returns once they were written; none where `fake` is given.
        fake: for ops that write nothing, returns empty tensors like the results, from shapes alone.
        words: names of integers below 2^64, which torch's integers hold as their two's complement.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        name, names = function.__name__, tuple(each.name for each in parameters)
        places = tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY)
        defaults = {each.name: each.default for each in parameters if each.default is not each.empty}

        def body(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(names, args, strict=False)) | kwargs
            given |= {word: given[word] % _WORD for word in words}
            answer = cast(Callable[..., Any], function)(**given)
            return answer if fake is not None else None

        if not hasattr(torch.ops.xai_fast, name):  # or this module was imported anew
            _REGISTERED.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
            _REGISTERED.impl(name, body, "CompositeExplicitAutograd")
            torch.library.register_fake(f"xai_fast::{name}", fake or _nothing, lib=_REGISTERED)
        node = getattr(torch.ops.xai_fast, name).default

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            if not torch.compiler.is_compiling():
                return function(*args, **kwargs)
            given: dict[str, Any] = defaults | dict(zip(names, args, strict=False)) | kwargs
            for word in words:
                given[word] = given[word] - _WORD if given[word] >= _WORD // 2 else given[word]
            # By their places: torch 2.11 refuses some tensors under the name of `out`.
            rest = {each: value for each, value in given.items() if each not in places}
            answer = node(*[given[each] for each in places], **rest)
            if fake is not None:
                return answer
            written = tuple(given[each] for each in returns)
            return written[0] if len(written) == 1 else written or None

        return call

    return decorate


def _nothing(*_: Any, **__: Any) -> None:
    """What is written has the shape that it had."""

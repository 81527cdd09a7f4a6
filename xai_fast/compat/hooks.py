"""Hooks in a model: a library's own, taken out while the engine answers; a user's, beside which it works otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .alone import alone_on
from .calls import Uncovered
from .models import modules_in

_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")
_EVERY = (*_BACKWARD, "_forward_hooks", "_forward_pre_hooks")


@contextmanager
def without_hooks(model: nn.Module, owner: type) -> Iterator[None]:
    """The model without the hooks that are methods of an `owner`; they come back in their old order."""
    with alone_on([model]):
        kept: list[tuple[dict[int, Any], list[tuple[int, Any]]]] = []
        for module in model.modules():
            for held in (module._forward_hooks, module._forward_pre_hooks):
                hooks = list(held.items())
                others = [(key, hook) for key, hook in hooks if not _is_of(hook, owner)]
                if len(others) < len(hooks):
                    kept.append((held, hooks))
                    _fill(held, others)
        try:
            yield
        finally:
            for held, hooks in kept:
                _fill(held, hooks)


def refuse_backward_hooks(forward: Any) -> None:
    """For libraries whose rules are backward hooks of theirs: one of the user's beside it changes what theirs gets.

    Raises:
        Uncovered: a module has one.
    """
    if any(getattr(module, kind) for module in modules_in(forward) for kind in _BACKWARD):
        raise Uncovered("a backward hook of the user's, beside which those of the library see something else")


def refuse_hooks(forward: Any, kind: type[nn.Module] = nn.Module) -> None:
    """For libraries that put a gradient in the place of what the modules' own, and their hooks, would give.

    Args:
        forward: the model, or a function of it.
        kind: of the modules whose hooks are meant.

    Raises:
        Uncovered: such a module has a hook.
    """
    if any(getattr(one, hooks) for one in modules_in(forward) if isinstance(one, kind) for hooks in _EVERY):
        raise Uncovered("a hook of the user's, of which a gradient that the library replaces takes no notice")


def _is_of(hook: Any, owner: type) -> bool:
    return isinstance(getattr(getattr(hook, "func", hook), "__self__", None), owner)


def _fill(held: dict[int, Any], hooks: list[tuple[int, Any]]) -> None:
    held.clear()
    held.update(hooks)

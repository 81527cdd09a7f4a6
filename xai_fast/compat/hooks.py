"""A library's own hooks taken out of a model while the engine answers, which looks at layers without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .alone import alone_on


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


def _is_of(hook: Any, owner: type) -> bool:
    return isinstance(getattr(getattr(hook, "func", hook), "__self__", None), owner)


def _fill(held: dict[int, Any], hooks: list[tuple[int, Any]]) -> None:
    held.clear()
    held.update(hooks)

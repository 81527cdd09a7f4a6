"""grad-cam's hooks taken out of a model while the engine answers, which looks at layers without them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_grad_cam.activations_and_gradients import (  # pyright: ignore[reportMissingImports]
    ActivationsAndGradients,
)
from torch import nn

_LOCK = threading.RLock()  # grad-cam's own calls on one model disturb each other as well


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """The model without the hooks of any of grad-cam's objects, which come back in their old order."""
    with _LOCK:
        kept = []
        for module in model.modules():
            hooks = list(module._forward_hooks.items())
            others = [(key, hook) for key, hook in hooks if not _is_ours(hook)]
            if len(others) < len(hooks):
                kept.append((module._forward_hooks, hooks))
                _fill(module._forward_hooks, others)
        try:
            yield
        finally:
            for held, hooks in kept:
                _fill(held, hooks)


def _is_ours(hook: object) -> bool:
    return isinstance(getattr(hook, "__self__", None), ActivationsAndGradients)


def _fill(held: dict, hooks: list) -> None:  # type: ignore[type-arg]
    held.clear()
    held.update(hooks)

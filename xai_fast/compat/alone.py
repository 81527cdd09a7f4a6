"""One thread at a time on a model that a library changes while it runs: by hooks, or by modules in others' places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from xai_fast.core.turns import turn_of

from .holding import modules_held

_WITHIN = ("attribution_method", "base_cam")  # where an explainer keeps another one
_MODEL = ("forward_func", "model")  # and where its model


@contextmanager
def alone(explainer: Any) -> Iterator[None]:
    """Waits for the turn of the explainer's model, which the engine takes as well, and keeps it while it is open."""
    with alone_on(_models_of(explainer)):
        yield


@contextmanager
def alone_on(models: Sequence[Any]) -> Iterator[None]:
    """The same of models; several are waited for in one order, whoever asks."""
    with ExitStack() as stack:
        for turn in sorted((turn_of(model) for model in models), key=id):
            stack.enter_context(turn.taken())
        yield


def _models_of(explainer: Any) -> Sequence[nn.Module]:
    own = getattr(explainer, "__dict__", {})
    while inner := next((own[name] for name in _WITHIN if own.get(name) is not None), None):
        own = getattr(inner, "__dict__", {})
    return modules_held(next((own[name] for name in _MODEL if own.get(name) is not None), None))

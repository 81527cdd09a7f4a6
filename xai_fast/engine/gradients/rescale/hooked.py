"""Modules with hooks of the user's: a known formula holds as long as no hook changes what goes in or comes out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from xai_fast.graph.operations import known_of, operation_of
from xai_fast.graph.steps import Step


def with_formula(step: Step) -> Step:
    """The step; where it calls a hooked module of a known type, under the name of what that type computes."""
    if step.operation or step.module is None or not (operation := operation_of(step.module)):
        return step
    return replace(step, operation=operation, kind=known_of(operation).kind)


def formula(step: Step) -> Step:
    """The step without hooks, for runs that the user did not ask for."""
    call = step.module.forward if step.module is not None else step.call
    return replace(step, call=call)


def checked(step: Step) -> Step:
    """A step that calls a hooked module; it raises ValueError where a hook changes a tensor on its way in or out."""
    module = step.module
    assert module is not None

    def call(*args: Any, **kwargs: Any) -> Any:
        # A shadow shares weights and hooks with the module, and leaves it as it is for other threads.
        shadow, seen = copy.copy(module), []

        def forward(*own: Any, **named: Any) -> Any:
            seen.append(_state(own, named) == given)
            made = module.forward(*own, **named)
            seen.append(_state(made))
            return made

        shadow.forward = forward
        given = _state(args, kwargs)
        made = shadow(*args, **kwargs)
        if seen != [True, _state(made)]:
            raise ValueError(f"the rescale rule cannot pass the hook on {step.label!r}, which changes a tensor")
        return made

    return replace(step, call=call)


def _state(*structures: Any) -> Sequence[tuple[int, int]]:
    """Which tensors there are, and how often each has been written into."""
    return [(id(leaf), leaf._version) for leaf in tree_leaves(structures) if isinstance(leaf, Tensor)]

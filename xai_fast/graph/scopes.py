"""Which parts of a model can be captured: the whole, else its children, and what lies behind single calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .capture import CaptureError, trace
from .deadline import REASON, out_of_time
from .steps import Graph


@dataclass(frozen=True, eq=False)
class Scope:
    """A module that was captured: its path in the model ("" is the model itself) and its graph."""

    path: str
    module: nn.Module
    graph: Graph

    def own(self, names: frozenset[str]) -> list[str]:
        """Those of the model's layer names that lie in this module, as the graph calls them."""
        if not self.path:
            return sorted(names)
        return sorted(name[len(self.path) + 1 :] for name in names if name.startswith(f"{self.path}."))


def scopes(model: nn.Module, barriers: frozenset[int], two_rows: Tensor | None = None) -> tuple[list[Scope], list[str]]:
    """The captured parts, none inside a step of another except behind a barrier, and why the rest resisted.

    Args:
        model: our own copy, in eval mode.
        barriers: ids of modules that stay single calls (the user's hooks sit on them).
        two_rows: what the model takes, so that forwards may branch on sizes.
    """
    refusals: list[str] = []
    found = _Search(model, barriers, two_rows, refusals)
    return list(found.within(model, "")), refusals


class _Search:
    """Goes from the model inwards, until something is captured."""

    def __init__(
        self, model: nn.Module, barriers: frozenset[int], two_rows: Tensor | None, refusals: list[str]
    ) -> None:
        self._model, self._barriers, self._two_rows, self._refusals = model, barriers, two_rows, refusals
        self._inputs: dict[int, Tensor] | None = None

    def within(self, module: nn.Module, path: str) -> Iterator[Scope]:
        """The captured parts of a module."""
        if path and out_of_time():
            self._refusals.append(f"{path} and what follows: {REASON}")
            return
        try:
            if not path and id(module) in self._barriers:
                raise CaptureError("hooks sit on the model itself")
            graph = trace(module, self._barriers, self._two_rows if not path else self._input_of(module))
        except CaptureError as error:
            self._refusals.append(f"{path or 'the model'} ({type(module).__name__}): {error}")
            inner = list(module.named_children())
        else:
            yield Scope(path, module, graph)
            called = [(step.label, step.module) for step in graph.steps if step.module is not None]
            inner = [(label, part) for label, part in dict(called).items() if id(part) in self._barriers]
        for name, child in inner:
            if next(child.children(), None) is not None:
                yield from self.within(child, f"{path}.{name}" if path else name)

    def _input_of(self, module: nn.Module) -> Tensor | None:
        """What a part of the model is given when two rows run; None where that is not one tensor of two rows."""
        if self._inputs is None and self._two_rows is not None:
            self._inputs = _inputs(self._model, self._two_rows)
        return (self._inputs or {}).get(id(module))


@torch.no_grad()
def _inputs(model: nn.Module, two_rows: Tensor) -> dict[int, Tensor]:
    """What every module with children is given in the first call of it, where that is one tensor of two rows."""
    given: dict[int, Tensor] = {}

    def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor) and args[0].ndim > 1 and len(args[0]) == 2:
            given.setdefault(id(module), args[0].clone())

    handles = [part.register_forward_pre_hook(watch) for part in model.modules() if next(part.children(), None)]
    try:
        model(two_rows)
    finally:
        for handle in handles:
            handle.remove()
    return given

"""Which parts of a model can be captured: the whole, else its children, and what lies behind single calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .capture import CaptureError, trace
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


def scopes(model: nn.Module, barriers: frozenset[int]) -> tuple[list[Scope], list[str]]:
    """The captured parts, none inside a step of another except behind a barrier, and why the rest resisted.

    Args:
        model: our own copy, in eval mode.
        barriers: ids of modules that stay single calls (the user's hooks sit on them).
    """
    refusals: list[str] = []
    return list(_scopes(model, "", barriers, refusals)), refusals


def _scopes(module: nn.Module, path: str, barriers: frozenset[int], refusals: list[str]) -> Iterator[Scope]:
    try:
        if not path and id(module) in barriers:
            raise CaptureError("hooks sit on the model itself")
        graph = trace(module, barriers)
    except CaptureError as error:
        refusals.append(f"{path or 'the model'} ({type(module).__name__}): {error}")
        inner = list(module.named_children())
    else:
        yield Scope(path, module, graph)
        called = [(step.label, step.module) for step in graph.steps if step.module is not None]
        inner = [(label, part) for label, part in dict(called).items() if id(part) in barriers]
    for name, child in inner:
        if next(child.children(), None) is not None:
            yield from _scopes(child, f"{path}.{name}" if path else name, barriers, refusals)

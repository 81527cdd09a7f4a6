"""A captured module, ready to run: as a whole in place of its own forward, or in parts around a cut."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .cut import Cut, CutError, cut
from .fuse import Fusion
from .program import Program
from .steps import INPUT, Graph, Step, filled


class Captured:
    """What a module computes, as programs.

    Args:
        graph: recorded on inputs of one shape; another shape needs another recording.
        fused: whether steps are fused for the CPU.
        short_sums: see `Fusion`.
        like: the same steps recorded on another shape, whose packed weights are shared.
    """

    def __init__(self, graph: Graph, *, fused: bool, short_sums: bool, like: Captured | None = None) -> None:
        self.graph = graph
        self._fusion = Fusion(graph, short_sums=short_sums, like=like and like._fusion) if fused else None
        self._whole = self.program(graph.steps, (), graph.results)

    def __call__(self, batch: Tensor) -> Any:
        """The module's raw output."""
        return filled(self.graph.output, self._whole.run({INPUT: batch}))

    @property
    def fuses(self) -> bool:
        """Whether steps are fused."""
        return self._fusion is not None

    def program(
        self, steps: Sequence[Step], given: Collection[int], wanted: Collection[int], *, plain: bool = False
    ) -> Program:
        """A part of the graph as a program; `plain` for one that autograd may go through."""
        if self._fusion is not None and not plain:
            steps = self._fusion(steps, given, wanted)
        return Program(self.graph, steps, wanted)

    def cut(self, layers: Sequence[str]) -> Cut:
        """The graph cut at the named layers.

        Raises:
            CutError: a layer is not visible in the graph, or it cannot be cut there.
            ValueError: a layer runs more than once, or not at all.
        """
        return cut(self.graph, [self.value_of(layer) for layer in layers])

    def value_of(self, layer: str) -> int:
        """The value that a layer returns."""
        values = self.graph.anchors.get(layer)
        if values is None:
            inside = next((step.label for step in self.graph.steps if layer.startswith(f"{step.label}.")), None)
            where = f"lies inside {inside!r}, which is called as a whole" if inside else "is not seen in the graph"
            raise CutError(f"layer {layer!r} {where}")
        if len(values) > 1:
            raise ValueError(f"`layer` {layer!r} runs more than once in a forward; choose a layer that runs once")
        if values[0] < 0:
            raise CutError(f"layer {layer!r} returns no tensor that depends on the input")
        return values[0]


class Replaced:
    """Stands in for the forward of a module inside a model that could not be captured as a whole."""

    def __init__(self, module: nn.Module, captured: Captured, shape: torch.Size) -> None:
        # Weak, or the module would hold itself.
        self._module, self._captured, self._shape = weakref.ref(module), captured, shape
        self.active = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].shape[1:] == self._shape
        if self.active and plain and not torch.is_grad_enabled():
            return self._captured(args[0])
        module = self._module()
        assert module is not None
        return type(module).forward(module, *args, **kwargs)


@contextmanager
def own_forwards(module: nn.Module) -> Iterator[None]:
    """Every module runs its own forward inside, as when somebody hooks a layer."""
    stand_ins = [f for f in (vars(m).get("forward") for m in module.modules()) if isinstance(f, Replaced)]
    for stand_in in stand_ins:
        stand_in.active = False
    try:
        yield
    finally:
        for stand_in in stand_ins:
            stand_in.active = True

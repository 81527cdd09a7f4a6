"""A captured module, ready to run: as a whole in place of its own forward, or in parts around a cut."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from . import care
from .address import address, refuse_absent, refuse_again
from .cut import Cut, CutError, cut
from .fuse import Fusion
from .fused import Implementation
from .join import joined
from .program import Program, Runs
from .stages import stages
from .steps import INPUT, Graph, Returned, Step, filled


class Captured:
    """What a module computes, as programs.

    Args:
        graph: recorded on inputs of one shape; another shape needs another recording.
        fused_by: the implementation of fused steps; None where none are fused.
        short_sums: see `Fusion`.
        example: (1, C, *S) the clean input on which it was compared with the model; None where that ran as a part.

    Attributes:
        agreements: whether gradients through the steps are the model's own, per way to take them: a reason or None,
            once they were compared on the example.
        steps: the whole forward: fused, where steps are.
        joins: whether some of them are joined where it runs as a whole.
        hides_nan: whether fused steps may answer an ordinary number for NaN, see `care`.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        fused_by: Implementation | None,
        short_sums: bool,
        example: Tensor | None = None,
    ) -> None:
        self.graph, self.short_sums, self.example = graph, short_sums, example
        self.agreements: dict[tuple[Any, ...], str | None] = {}
        self._fusion = None
        self.hides_nan = fused_by is not None and fused_by.hides_nan
        if fused_by is not None:
            self._fusion = Fusion(graph, fused_by, short_sums=short_sums)
        self._fused_by, self._repeated = fused_by, weakref.WeakSet[Runs]()
        self.steps = tuple(self.fused(graph.steps, (), graph.results))
        steps = self.steps if fused_by is None else joined(self.steps, graph, graph.results, fused_by)
        self.joins = len(steps) < len(self.steps)
        self._whole = self.repeated(Program(graph, steps, graph.results, whole=True))
        self._stages = []
        if fused_by is not None and fused_by.regroups:
            self._stages = stages(graph, self._whole.steps, lambda steps, wanted: Program(graph, steps, (wanted,)))
        self._rows = min((stage.rows for stage in self._stages), default=0)

    def __call__(self, batch: Tensor) -> Any:
        """The module's raw output."""
        if not self._stages or len(batch) <= self._rows:
            return filled(self.graph.output, self._whole.run({INPUT: batch}))
        with care.run():
            for stage in self._stages:
                batch = stage.run(batch)
        return filled(self.graph.output, {**self.graph.fixed, self._stages[-1].makes: batch})

    @property
    def fuses(self) -> bool:
        """Whether steps are fused."""
        return self._fusion is not None

    @property
    def grown(self) -> int:
        """How often it, and what else runs its steps, came to hold more memory."""
        return sum(run.grown for run in self._repeated)

    def fused(self, steps: Sequence[Step], given: Collection[int], wanted: Collection[int]) -> Sequence[Step]:
        """A part of the graph as it would run, from the given values to the wanted ones."""
        return self._fusion(steps, given, wanted) if self._fusion is not None else steps

    def program(
        self, steps: Sequence[Step], given: Collection[int], wanted: Collection[int], *, plain: bool = False
    ) -> Program:
        """A part of the graph as a program; `plain` for one that autograd may go through."""
        if plain:
            return Program(self.graph, steps, wanted)
        return Program(self.graph, self.fused(steps, given, wanted), wanted, whole=True)

    def repeated(self, program: Program) -> Runs:
        """What runs a fused program that comes again and again with inputs of a few sizes."""
        if self._fused_by is None:
            return program
        run = self._fused_by.repeated(program, self.graph)
        if run is not program:
            self._repeated.add(run)
        return run

    def cut(self, layers: Sequence[str]) -> Cut:
        """The graph cut at the named layers.

        Raises:
            CutError: a layer is not visible in the graph, or it cannot be cut there.
            ValueError: a layer runs more than once, or not at all.
        """
        return cut(self.graph, [self.returned_by(layer) for layer in layers])

    def returned_by(self, layer: str) -> Returned:
        """What a layer returns.

        Raises:
            CutError, ValueError: as `cut`.
        """
        place = address(layer)
        if place.input:
            raise CutError(f"what goes into {place.module!r} has no name in the graph")
        calls = self.graph.anchors.get(place.module)
        if calls is None:
            self._refuse_unseen(place.module)
        if len(calls) > 1 and place.call is None:
            refuse_again(layer)
        if place.call is not None:
            refuse_absent(layer, len(calls))
        returned = calls[(place.call or 1) - 1]
        if returned is None:
            raise CutError(f"layer {layer!r} returns what it was given, or no tensor")
        return returned

    def _refuse_unseen(self, layer: str) -> NoReturn:
        called = [step.label for step in self.graph.steps if step.module is not None]
        around = next((label for label in called if layer.startswith(f"{label}.")), None)
        if around is None:
            refuse_absent(layer, 0)
        raise CutError(f"layer {layer!r} lies inside {around!r}, which is called as a whole")


class Replaced:
    """Stands in for the forward of a module inside a model that could not be captured as a whole."""

    def __init__(self, module: nn.Module, captured: Captured, shape: torch.Size) -> None:
        # Weak, or the module would hold itself.
        self._module, self._captured, self._shape = weakref.ref(module), captured, shape
        self.active = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns: as a program for one tensor of the recorded shape, by its own forward otherwise."""
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

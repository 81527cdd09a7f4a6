"""What a rule says: how far a change spreads through one step, what the step must read, and how it runs on that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from xai_fast.graph.steps import Graph, Step, Value

from .boxes import Boxes, Grid, Spans, covering


class Border(NamedTuple):
    """What lies beyond the edge of a map: as for `ops.region_gather`."""

    mode: str = "constant"
    fill: float = 0.0


class Scene:
    """What is known of the values that come before a step.

    Args:
        graph: recorded.

    Attributes:
        graph: the same.
        grids: of the values that differ inside a box.
        fixed: constants: tensors, numbers, sizes, none of which depends on the input.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.grids: dict[int, Grid] = {}
        self.fixed: dict[int, Any] = {**graph.known, **graph.fixed}

    def shape(self, number: int) -> tuple[int, ...] | None:
        """Of a tensor for one row, the row's axis included."""
        fixed = self.fixed.get(number)
        if isinstance(fixed, Tensor):
            return tuple(fixed.shape)
        trait = self.graph.traits.get(number)
        return trait.shape if trait is not None else None

    def constant(self, argument: Any) -> Any:
        """An argument with constants filled in; a `Value` stays where it is not constant."""
        if isinstance(argument, Value):
            return self.fixed.get(argument.number, argument)
        if isinstance(argument, list | tuple):
            return type(argument)(map(self.constant, argument))
        return argument


class Rule:
    """One step on patches; this base is for steps whose output position depends on the same position alone.

    Args:
        step: the step.
        grid: the positions of what it makes.
        sources: the values that it reads region by region, in the order in which `apply` gets them.

    Attributes:
        consumes: which of the sources it writes into.
        stays: whether the output lies where its one source does, so that nothing has to be gathered.
        side_by_side: the axis along which it lays its sources, if that is all it does.
        linear: whether the difference that it makes depends on the differences of its sources alone, linearly.
        border: what it reads beyond the edge.
    """

    border = Border()
    linear = False
    side_by_side: int | None = None

    def __init__(self, step: Step, grid: Grid, sources: Sequence[int], consumes: Sequence[int] = ()) -> None:
        self.step, self.grid, self.sources, self.consumes = step, grid, tuple(sources), tuple(consumes)
        self.stays = len(self.sources) == 1

    def reach(self, spans: Sequence[Spans]) -> Spans:
        """What may differ in the output, from what may differ in each source that differs at all."""
        (only,) = spans
        return only

    def place(self, spans: Spans, sources: Sequence[Boxes]) -> Boxes:
        """The boxes in which the output is computed."""
        return sources[0] if self.stays else covering(spans, self.grid.extents)

    def needs(self, own: Boxes) -> list[Boxes]:
        """The region of each source from which the output in `own` is computed."""
        return [own for _ in self.sources]

    def extras(self, own: Boxes) -> tuple[Tensor, ...]:
        """What differs by row beside the regions, computed once for many batches: tensors (rows, ...)."""
        return ()

    def apply(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """The output in its boxes."""
        return self.step.run({**constants, **dict(zip(self.sources, regions, strict=True))})

    def worth(self) -> float:
        """How many positions of a patch cost as much as the whole map; fewer than it has where padding is skipped."""
        return float(np.prod(self.grid.extents))

    def difference(self, regions: Sequence[Any], extras: Sequence[Tensor], constants: Mapping[int, Any]) -> Any:
        """What differences of the sources make of the output, where that is linear: without biases and fills."""
        return self.apply(regions, extras, constants)

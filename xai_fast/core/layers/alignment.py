"""Where positions of the input lie in a map, told from the operators that made it, as autograd has recorded them.

Convolutions, pooling, normalisation, arithmetic, changes of shape and attention say by themselves which axis of their
result holds which positions, so that nothing has to be run to find out. An operator that is not known here says
nothing, and neither does a map that depends on what it returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

from .grids import Axes, Reading, Tokens
from .operator_axes import FREE, OPEN, RULES, Held, Known, OpenError, Run, operator, shape_of


class Alignment:
    """Which axes of the tensors of one forward hold positions of its input.

    Args:
        leaf: the input (1, C, *S), from which the forward's graph begins.
    """

    def __init__(self, leaf: Tensor) -> None:
        self._leaf, self._axes = leaf, leaf.ndim - 2
        self._known: dict[Any, Known] = {}

    def reading(self, edge: GradientEdge | None, shape: Sequence[int]) -> Reading | None:
        """How a tensor (1, ...) of this shape is a grid over the input; None where that cannot be told."""
        held = FREE if edge is None else self._held(edge.node)
        if isinstance(held, str) or len(held) != len(shape):
            return None
        if len(held) == 3 and isinstance(run := held[1], Run) and held[0] is None and held[2] is None:
            return Tokens(run.first, run.grid) if len(run.grid) == self._axes else None
        fitting = [
            channels for channels in range(1, len(held))
            if held[0] is None and self._along_axes(held[1:channels] + held[channels + 1 :], shape, channels)
            and held[channels] is None
        ]  # fmt: skip
        return Axes(fitting[0]) if len(fitting) == 1 else None

    def _along_axes(self, held: Held, shape: Sequence[int], channels: int) -> bool:
        """Whether axes are those of the input in their order; one of a single cell may be any."""
        extents = [extent for axis, extent in enumerate(shape) if axis not in (0, channels)]
        alike = (one == axis or (one is None and extents[axis] == 1) for axis, one in enumerate(held))
        return len(held) == self._axes and all(alike)

    def _held(self, node: Any) -> Known:
        """What the result of an operator holds; operands first, without recursion, which deep networks would exceed."""
        waiting = [node]
        while waiting:
            node = waiting[-1]
            parents = [parent for parent, _ in node.next_functions if parent is not None]
            if unknown := [parent for parent in parents if parent not in self._known]:
                waiting += unknown
                continue
            waiting.pop()
            if node not in self._known:
                self._known[node] = self._of(node)
        return self._known[node]

    def _of(self, node: Any) -> Known:
        if not node.next_functions:
            begins = getattr(node, "variable", None) is self._leaf
            return (None, None, *range(self._axes)) if begins else FREE
        parents = [
            (FREE, None) if parent is None else (self._known[parent], shape_of(parent, number))
            for parent, number in node.next_functions
        ]
        if all(held is FREE for held, _ in parents):
            return FREE
        rule = RULES.get(operator(node))
        if rule is None or any(held is OPEN for held, _ in parents):
            return OPEN
        try:
            return rule(node, parents, shape_of(node, 0))
        # What autograd saved may have been written into, and an operator may be used as no rule expects.
        except (OpenError, AttributeError, RuntimeError, LookupError, ValueError, AssertionError):
            return OPEN

"""Stretches of the forward that are left to autograd, each by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from xai_fast.core import autograd
from xai_fast.graph.dataflow import memories_written, memory, on_copies
from xai_fast.graph.program import Program
from xai_fast.graph.steps import Graph, Step

from .gradients import Gradients, Held
from .nodes import Values
from .rectifier import Rectified


@dataclass(frozen=True)
class _Recorded:
    """What autograd remembers of a stretch: the tensors that it starts from and those that it ends in, by value."""

    leaves: tuple[tuple[int, int, Tensor], ...]
    ends: tuple[tuple[int, int, Tensor], ...]


class Recorded:
    """A stretch of steps under autograd.

    Args:
        graph: of which they are a part.
        steps: in order.
        active: values that pass gradients on.
        wanted: what it makes that is read later.
        rule: of the ReLUs that run inside its modules, unseen by the graph.
    """

    def __init__(
        self, graph: Graph, steps: Sequence[Step], active: Collection[int], wanted: Collection[int], rule: str
    ) -> None:
        made = {step.makes for step in steps}
        self.reads = tuple(dict.fromkeys(n for step in steps for n in step.reads if n not in made))
        self.makes = tuple(number for number in wanted if number in made)
        # A value of which only the shape is read gets no gradient.
        followed = {number for step in steps if step.makes in active for number in step.reads}
        self._active = tuple(number for number in self.reads if number in active and number in followed)
        borrowed = {memory(graph, number) for number in self.reads}
        # Autograd forbids writing into what it starts from.
        steps = [on_copies(step) if memories_written(graph, step) & borrowed else step for step in steps]
        self._program = Program(graph, steps, self.makes)
        self._rule = rule
        self.rectifiers = 0

    def forward(self, values: Values) -> _Recorded:
        """See `Node`."""
        given = {number: values[number] for number in self.reads}
        leaves: list[tuple[int, int, Tensor]] = []
        for number in self._active:
            given[number] = as_leaves(given[number], number, leaves)
        with torch.enable_grad(), self._rectified() as mode:
            made = self._program.run(given)
        self.rectifiers = mode.met if mode is not None else 0
        ends = tuple(
            (number, part, tensor)
            for number, value in made.items()
            for part, tensor in enumerate(tree_leaves(value))
            if isinstance(tensor, Tensor) and tensor.requires_grad
        )
        values.update((number, tree_map(_detached, value)) for number, value in made.items())
        return _Recorded(tuple(leaves), ends)

    def backward(self, kept: _Recorded, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        arrived = [(end, held) for n, part, end in kept.ends if (held := gradients.take(n, part)) is not None]
        leaves = [leaf for *_, leaf in kept.leaves]
        if not arrived or not leaves:
            return
        ends, given = zip(*arrived, strict=True)
        found = autograd.grad(ends, leaves, [held.tensor for held in given], retain_graph=not last, allow_unused=True)
        # What comes back may be what was handed in, or a view of it, or twice the same; so nothing is let go of.
        seen = {_memory(held.tensor) for held in given}
        for (number, part, _), gradient in zip(kept.leaves, found, strict=True):
            if gradient is not None:
                own = _memory(gradient) not in seen and _dense(gradient)
                seen.add(_memory(gradient))
                gradients.add(number, Held(gradient, own=own), part)

    def _rectified(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._rule == "gradient" else Rectified(self._rule)


def as_leaves(value: Any, number: int, leaves: list[tuple[int, int, Tensor]]) -> Any:
    """The value with its floating and complex tensors as leaves of autograd's, noted as (number, position, leaf)."""
    positions = iter(range(len(tree_leaves(value))))

    def fresh(leaf: Any) -> Any:
        part = next(positions)
        if not (isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())):
            return leaf
        leaf = leaf.detach().requires_grad_()
        leaves.append((number, part, leaf))
        return leaf

    return tree_map(fresh, value)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _dense(tensor: Tensor) -> bool:
    images = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return images or tensor.is_contiguous()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

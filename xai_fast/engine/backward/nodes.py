"""What a forward is made of for the backward: steps with a formula for their gradient, and stretches left to autograd."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from xai_fast.core.graph.onednn import FusedLinear
from xai_fast.core.graph.program import Program
from xai_fast.core.graph.steps import Graph, Step
from xai_fast.core.graph.straight import on_copies

from .activations import Derivative
from .adjoint import Adjoint
from .gradients import Gradients, Held
from .rectifier import Rectified

Values = dict[int, Any]


class Node(Protocol):
    """A part of the forward, with its backward."""

    @property
    def reads(self) -> Collection[int]:
        """The values that it reads."""
        ...

    @property
    def makes(self) -> Collection[int]:
        """The values that it makes."""
        ...

    @property
    def rectifiers(self) -> int:
        """How many ReLUs it holds."""
        ...

    def forward(self, values: Values) -> Any:
        """Adds what it makes to the values; returns what its backward needs."""
        ...

    def backward(self, kept: Any, gradients: Gradients, *, last: bool) -> None:
        """Takes the gradients of what it makes and adds those of what it reads.

        Args:
            kept: of the forward; still needed afterwards, unless this is the last backward.
            gradients: so far.
            last: whether no other backward over what is kept follows.
        """
        ...


@dataclass(frozen=True)
class Affine:
    """A fused convolution or linear layer: an affine map, perhaps plus another value, then perhaps an activation.

    Attributes:
        step: the fused step.
        adjoint: of the affine map; None where nothing asks for the gradient of what it reads.
        derivative: of the activation, from what it returns.
        other: the value that is added; None where there is none, or where nothing asks for its gradient.
    """

    step: Step
    adjoint: Adjoint | None
    derivative: Derivative | None
    other: int | None = None

    @property
    def reads(self) -> tuple[int, ...]:
        """See `Node`."""
        return self.step.reads

    @property
    def makes(self) -> tuple[int, ...]:
        """See `Node`."""
        return (self.step.makes,)

    @property
    def rectifiers(self) -> int:
        """See `Node`."""
        return int(self.derivative is not None and self.derivative.rectifies)

    def forward(self, values: Values) -> Tensor | None:
        """See `Node`."""
        made = self.step.makes
        if made not in values:  # a run may start from it
            values[made] = self.step.run(values)
        return values[made] if self.derivative is not None else None

    def backward(self, kept: Tensor | None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = self.before_activation(kept, gradients)
        if held is None:
            return
        if self.adjoint is not None:
            self.adjoint(held.tensor, self.step.reads[0], gradients)
        # Last, because whoever adds to it next may do so in place.
        if self.other is not None:
            gradients.add(self.other, held)
        else:
            held.release()

    def before_activation(self, kept: Tensor | None, gradients: Gradients) -> Held | None:
        """The gradient by what the activation is given."""
        held = gradients.take(self.step.makes)
        if held is None or self.derivative is None or kept is None:
            return held
        return self.derivative.backward(held, kept)


class LinearAdjoint:
    """The input gradient of a linear layer: (..., out) to (..., in)."""

    def __init__(self, linear: FusedLinear) -> None:
        self._back = FusedLinear(linear.weight.detach().t(), None)

    def __call__(self, gradient: Tensor, value: int, gradients: Gradients) -> None:
        """See `Adjoint`."""
        gradients.add(value, Held(self._back(gradient)))


@dataclass(frozen=True)
class Elementwise:
    """An activation that stands alone."""

    step: Step
    derivative: Derivative

    @property
    def reads(self) -> tuple[int, ...]:
        """See `Node`."""
        return self.step.reads

    @property
    def makes(self) -> tuple[int, ...]:
        """See `Node`."""
        return (self.step.makes,)

    @property
    def rectifiers(self) -> int:
        """See `Node`."""
        return int(self.derivative.rectifies)

    def forward(self, values: Values) -> Tensor:
        """See `Node`."""
        x = values[self.step.reads[0]]
        y = values[self.step.makes] = self.derivative.forward(x)
        return y if self.derivative.from_output else x

    def backward(self, kept: Tensor, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = gradients.take(self.step.makes)
        if held is not None:
            gradients.add(self.step.reads[0], self.derivative.backward(held, kept))


@dataclass(frozen=True)
class Sum:
    """The plain sum of two tensors of one shape.

    Attributes:
        step: the addition.
        active: those of its two sides whose gradients are asked for.
    """

    step: Step
    active: tuple[int, ...]
    rectifiers: int = field(default=0, init=False)

    @property
    def reads(self) -> tuple[int, ...]:
        """See `Node`."""
        return self.step.reads

    @property
    def makes(self) -> tuple[int, ...]:
        """See `Node`."""
        return (self.step.makes,)

    def forward(self, values: Values) -> None:
        """See `Node`."""
        left, right = self.step.reads
        values[self.step.makes] = torch.add(values[left], values[right])

    def backward(self, kept: None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = gradients.take(self.step.makes)
        if held is None:
            return
        for value in self.active[1:]:
            gradients.add(value, held.share())
        gradients.add(self.active[0], held)


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
        borrowed = {graph.traits[number].group for number in self.reads if number in graph.traits}

        def writes_outside(step: Step) -> bool:
            return any(graph.traits[number].group in borrowed for number in graph.writes.get(step.makes, ()))

        # Autograd forbids writing into what it starts from.
        steps = [on_copies(step) if writes_outside(step) else step for step in steps]
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
        found = torch.autograd.grad(
            ends, leaves, [held.tensor for held in given], retain_graph=not last, allow_unused=True
        )
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
    """The value with its floating tensors replaced by leaves of autograd's, noted as (number, position, leaf)."""
    positions = iter(range(len(tree_leaves(value))))

    def fresh(leaf: Any) -> Any:
        part = next(positions)
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
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

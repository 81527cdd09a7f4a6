"""What a forward is made of for its backward: steps whose gradients have a formula."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xai_fast.graph.fused import NOTHING, Activation, FusedConvolution, FusedLinear, FusedResidual, Strided
from xai_fast.graph.steps import Step

from .activations import Derivative
from .gradients import Gradients, Held
from .rectifier import Mask
from .sums import RowSums

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
class AbstractStepNode:
    """A node of one step.

    Attributes:
        step: the step, with what is fused into it.
        derivative: of the activation in it; None without one.
    """

    step: Step
    derivative: Derivative | None

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

    def kept(self, made: Tensor) -> Mask | Tensor | None:
        """What the backward needs of what the step made."""
        return None if self.derivative is None else self.derivative.kept(made)

    def before_activation(self, kept: Mask | Tensor | None, gradients: Gradients) -> Held | None:
        """The gradient by what the activation is given; None where none arrived."""
        held = gradients.take(self.step.makes)
        if held is None or self.derivative is None or kept is None:
            return held
        return self.derivative.backward(held, kept)


@dataclass(frozen=True)
class Affine(AbstractStepNode):
    """A fused convolution or linear layer: an affine map, perhaps plus another value, then perhaps an activation.

    Attributes:
        shape: (C, ...) of what it reads first; None where nothing asks for the gradient of that.
        other: the value that is added; None where there is none, or where nothing asks for its gradient.
    """

    shape: tuple[int, ...] | None
    other: int | None

    def forward(self, values: Values) -> Mask | Tensor | None:
        """See `Node`."""
        y = values[self.step.makes] = self.step.run(values)
        return self.kept(y)

    def backward(self, kept: Mask | Tensor | None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = self.before_activation(kept, gradients)
        if held is None:
            return
        if self.shape is not None:
            self.add_input_gradient(held.tensor, gradients)
        # Last, because whoever adds to it next may do so in place.
        if self.other is not None:
            gradients.add(self.other, held)
        else:
            held.release()

    def backward_of_sums(self, kept: Mask | Tensor | None, gradients: Gradients, sums: RowSums) -> None:
        """As `backward`, after a sum over rows: the affine map passes that as it passes rows."""
        held = self.before_activation(kept, gradients)
        if held is not None and self.shape is not None:
            self.add_input_gradient(sums(held.tensor), gradients)

    def add_input_gradient(self, gradient: Tensor, gradients: Gradients) -> None:
        """Adds the gradient of what the affine map reads, from that of what it makes, before anything is added."""
        call, value = self.step.call, self.step.reads[0]
        assert self.shape is not None
        if isinstance(call, FusedLinear):
            gradients.add(value, Held(call.source.input_gradient(gradient)))
            return
        assert isinstance(call, FusedConvolution | FusedResidual)
        there = gradients.place(value)
        found = call.source.input_gradient(gradient, self.shape, None if there is None else there.tensor)
        if isinstance(found, Strided):
            gradients.add_strided(value, found)
        elif there is not None:
            there.tensor = found
        else:
            gradients.add(value, Held(found))


@dataclass(eq=False)
class FusedNormalisation:
    """A batch normalisation by fixed statistics, with the activation that follows it.

    Attributes:
        norm: the module.
        activation: what follows it.
    """

    norm: nn.modules.batchnorm._BatchNorm
    activation: Activation = NOTHING

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (rows, C, ...)."""
        return self.activation(self.norm(x))

    @property
    def scale(self) -> Tensor:
        """(C,) by which it multiplies."""
        norm = self.norm
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var.detach().double() + norm.eps)
        scale = scale * norm.weight.detach() if norm.weight is not None else scale
        return scale.to(norm.running_var.dtype)


@dataclass(frozen=True)
class Normalised(AbstractStepNode):
    """A fused batch normalisation.

    Attributes:
        scale: (C, 1, ...) by which it multiplies.
    """

    scale: Tensor

    def forward(self, values: Values) -> Mask | Tensor | None:
        """See `Node`."""
        y = values[self.step.makes] = self.step.run(values)
        return self.kept(y)

    def backward(self, kept: Mask | Tensor | None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = self.before_activation(kept, gradients)
        if held is not None:
            g = held.tensor
            gradients.add(self.step.reads[0], held.replaced(g.mul_(self.scale) if held.own else g * self.scale))


@dataclass(frozen=True)
class Elementwise(AbstractStepNode):
    """An activation that stands alone."""

    derivative: Derivative

    def forward(self, values: Values) -> Mask | Tensor | None:
        """See `Node`."""
        x = values[self.step.reads[0]]
        y = values[self.step.makes] = self.derivative.forward(x)
        return self.kept(y) if self.derivative.from_output else x

    def backward(self, kept: Mask | Tensor | None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = self.before_activation(kept, gradients)
        if held is not None:
            gradients.add(self.step.reads[0], held)


@dataclass(frozen=True)
class Sum(AbstractStepNode):
    """The plain sum of two tensors of one shape.

    Attributes:
        active: those of its two sides whose gradients are asked for.
    """

    active: tuple[int, ...]

    def forward(self, values: Values) -> None:
        """See `Node`."""
        left, right = self.step.reads
        values[self.step.makes] = torch.add(values[left], values[right])

    def backward(self, kept: None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = self.before_activation(kept, gradients)
        if held is None:
            return
        for value in self.active[1:]:
            gradients.add(value, held.share())
        gradients.add(self.active[0], held)


@dataclass(frozen=True)
class Concatenated(AbstractStepNode):
    """Values side by side along the channels.

    Attributes:
        values: in order.
        channels: of each.
    """

    values: tuple[int, ...]
    channels: tuple[int, ...]

    def forward(self, values: Values) -> None:
        """See `Node`."""
        values[self.step.makes] = self.step.run(values)

    def backward(self, kept: None, gradients: Gradients, *, last: bool) -> None:
        """See `Node`."""
        held = self.before_activation(kept, gradients)
        if held is not None:
            gradients.add_joined(self.values, self.channels, held)

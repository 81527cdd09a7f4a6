"""Derivatives of activations, from what they return where that tells enough, else from what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_fast.graph.fused import Activation
from xai_fast.graph.operations import known_of

from .gradients import Held
from .rectifier import Mask, passed

_aten = torch.ops.aten
# From the gradient by the output and what is kept, into a tensor, which may be the gradient itself.
_BACKWARD: dict[str, Callable[[Tensor, Tensor, Activation, Tensor], Tensor]] = {
    "hardtanh": lambda g, y, a, to: _aten.hardtanh_backward.grad_input(g, y, *a.scalars, grad_input=to),
    "leaky_relu": lambda g, y, a, to: _aten.leaky_relu_backward.grad_input(g, y, *a.scalars, True, grad_input=to),
    "sigmoid": lambda g, y, _, to: _aten.sigmoid_backward.grad_input(g, y, grad_input=to),
    "tanh": lambda g, y, _, to: _aten.tanh_backward.grad_input(g, y, grad_input=to),
    "silu": lambda g, x, _, to: _aten.silu_backward.grad_input(g, x, grad_input=to),
    "hardswish": lambda g, x, _, to: _aten.hardswish_backward.out(g, x, out=to),
    "gelu": lambda g, x, a, to: _aten.gelu_backward.grad_input(g, x, approximate=a.approximate, grad_input=to),
}


@dataclass(frozen=True)
class Derivative:
    """How an activation passes gradients back.

    Attributes:
        activation: which.
        rule: of its ReLUs, see `rectifier.passed`.
    """

    activation: Activation
    rule: str = "gradient"

    @property
    def from_output(self) -> bool:
        """Whether what the activation returns tells its derivative, so that what it was given need not be kept."""
        activation = self.activation
        folds = activation.name == "leaky_relu" and activation.scalars[0] <= 0
        return known_of(activation.name).gradient == "of output" and not folds

    @property
    def rectifies(self) -> bool:
        """Whether it is a ReLU."""
        return self.activation.name == "relu"

    @property
    def known(self) -> bool:
        """Whether there is a formula for it."""
        return self.from_output or known_of(self.activation.name).gradient == "of input"

    def forward(self, x: Tensor) -> Tensor:
        """The activation, out of place."""
        return self.activation.apart(x)

    def kept(self, output: Tensor) -> Mask | Tensor:
        """What to keep of what the activation returned, where that tells its derivative."""
        return Mask.of(output) if self.rectifies else output

    def backward(self, held: Held, kept: Mask | Tensor) -> Held:
        """The gradient by what the activation was given, from the one by what it returned.

        Args:
            held: the gradient, which is used up.
            kept: see `kept`; what the activation was given if not `from_output`.
        """
        g = held.tensor
        # In the layout of the forward, or every step further back would have to convert it.
        if held.own and g.stride() == kept.stride():
            to = g
        else:
            to = kept.empty(g) if isinstance(kept, Mask) else torch.empty_like(kept)
        if isinstance(kept, Mask) or self.rectifies:
            return held.replaced(passed(g, kept, self.rule, to))
        return held.replaced(_BACKWARD[self.activation.name](g, kept, self.activation, to))


def derivative_of(activation: Any, rule: str) -> Derivative | None:
    """The derivative of an activation; None where there is no formula for it."""
    found = Derivative(activation, rule)
    return found if found.known else None

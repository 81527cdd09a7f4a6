"""Results that can be differentiated where the library's can: its code runs when somebody asks for the derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def later(
    values: Tensor, again: Callable[[], Any], leaves: Sequence[Any], part: int = 0, *, always: bool = False
) -> Tensor:
    """The values, attached to a graph that computes them anew.

    Args:
        values: computed without a graph.
        again: what computes them with one, alone or in a tuple.
        leaves: what they may depend on.
        part: which of several results they are.
        always: whether they can be differentiated even where no leaf can, if by nothing that anybody holds.
    """
    needed = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not torch.is_grad_enabled() or not (needed or always):
        return values
    nothing = torch.zeros((), requires_grad=True)
    return _Later.apply(values, again, part, nothing, *needed)  # type: ignore[return-value]


class _Later(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, again: Callable[[], Any], part: int, _nothing: Tensor, *leaves: Tensor
    ) -> Tensor:
        ctx.again, ctx.part, ctx.leaves = again, part, leaves
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        if not ctx.leaves:
            return None, None, None, None
        with torch.enable_grad():
            result = ctx.again()
            found = torch.autograd.grad(
                result[ctx.part] if isinstance(result, tuple) else result, ctx.leaves, gradient, allow_unused=True
            )
        return None, None, None, None, *found

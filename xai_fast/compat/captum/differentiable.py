"""Results that can be differentiated where captum's can: its own code runs when somebody asks for the derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.compat.calls import Call


def differentiated_later(call: Call, values: Tensor, *inputs: Any, part: int = 0) -> Tensor:
    """The values as captum attaches them to its graph: to the inputs and the model's parameters.

    Args:
        call: whose result they are.
        values: computed without a graph.
        inputs: what the result may depend on beside the parameters.
        part: which of several results they are.
    """
    if not torch.is_grad_enabled():
        return values
    forward = call.explainer.forward_func
    parameters = forward.parameters() if isinstance(forward, nn.Module) else ()
    leaves = [leaf for leaf in (*inputs, *parameters) if isinstance(leaf, Tensor) and leaf.requires_grad]
    # Captum's results can always be differentiated, if by nothing that anybody holds.
    nothing = torch.zeros((), requires_grad=True)
    return _Later.apply(values, call.plain, part, nothing, *leaves)  # type: ignore[return-value]


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

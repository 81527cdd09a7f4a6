"""Results as captum attaches them to its graph: to the inputs and the model's parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from xai_fast.compat.calls import Call
from xai_fast.compat.differentiable import later


def differentiated_later(call: Call, values: Tensor, *inputs: Any, part: int = 0) -> Tensor:
    """The values, which captum's own code computes anew when somebody asks for a derivative.

    Args:
        call: whose result they are.
        values: computed without a graph.
        inputs: what the result may depend on beside the parameters.
        part: which of several results they are.
    """
    forward = call.explainer.forward_func
    parameters = forward.parameters() if isinstance(forward, nn.Module) else ()
    return later(values, call.plain, (*inputs, *parameters), part, always=True)

"""gated_pointwise in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def gated_pointwise(
    inputs: Tensor, gate: Tensor, project: Tensor, project_bias: Tensor, other: Tensor | None, out: Tensor
) -> None:
    """The gated map, rounded to the inputs' dtype, and its convolution in the gate's."""
    wide, (_, channels, *_), results = gate.dtype, inputs.shape, out.shape[1]
    weight = project.transpose(1, 2).flatten(2).flatten(0, 1)[:results, :channels].to(wide)
    gated = (inputs.to(wide) * gate[:, :, None, None]).to(inputs.dtype).to(wide)
    y = F.linear(gated.movedim(1, -1), weight, project_bias[:results]).movedim(-1, 1)
    out.copy_(y if other is None else y + other)

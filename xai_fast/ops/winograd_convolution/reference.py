"""winograd_convolution in plain torch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_OF_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_OF_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


@torch.no_grad()
def winograd_convolution(
    inputs: Tensor, kernels: Tensor, bias: Tensor | None, other: Tensor | None, out: Tensor, padding: int, relu: bool
) -> None:
    """Every 4x4 patch is transformed, its products summed over channels, and the sums transformed to 2x2 results."""
    height, width = out.shape[2:]
    if inputs.dtype is torch.bfloat16:  # sums are of float32
        inputs, kernels = inputs.float(), kernels.float()
    kernels = kernels.transpose(3, 4).flatten(2, 3)  # (K / P, 16, C, P)
    of_input, of_output = (torch.tensor(m).to(inputs) for m in (_OF_INPUT, _OF_OUTPUT))
    padded = F.pad(inputs, (padding, padding + width % 2, padding, padding + height % 2))
    patches = padded.unfold(2, 4, 2).unfold(3, 4, 2)  # (N, C, y, x, 4, 4)
    transformed = torch.einsum("ia,ncyxab,jb->ijcnyx", of_input, patches, of_input).flatten(0, 1)
    sums = torch.einsum("pick,icnyx->inpkyx", kernels, transformed).flatten(2, 3)
    tiles = torch.einsum("ua,abnkyx,vb->nkyuxv", of_output, sums.unflatten(0, (4, 4)), of_output)
    results = tiles.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
    if bias is not None:
        results = results + bias[:, None, None]
    if other is not None:
        results = results + other
    out.copy_(results.relu() if relu else results)

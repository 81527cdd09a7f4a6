"""winograd_convolution in plain torch: the specification; and the kernels that every implementation takes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_OF_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_OF_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OF_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


def winograd_kernels(weight: Tensor, panel: int) -> Tensor:
    """Transforms a weight (K, C, 3, 3) to (K / panel, 16, C, panel), computed in float64.

    Raises:
        ValueError: the weight is not of that shape, or K is no multiple of `panel`.
    """
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3) or weight.shape[0] % panel:
        raise ValueError(
            f"`weight` has shape {tuple(weight.shape)}; it takes (K, C, 3, 3), K a multiple of the panel {panel}"
        )
    matrix = torch.tensor(_OF_KERNEL, dtype=torch.float64, device=weight.device)
    whole = torch.einsum("ia,kcab,jb->ijck", matrix, weight.detach().double(), matrix).to(weight.dtype)
    return whole.flatten(0, 1).unflatten(2, (-1, panel)).permute(2, 0, 1, 3).contiguous()


@torch.no_grad()
def winograd_convolution(
    inputs: Tensor, kernels: Tensor, bias: Tensor | None, other: Tensor | None, out: Tensor, padding: int, relu: bool
) -> None:
    """Every 4x4 patch is transformed, its products summed over channels, and the sums transformed to 2x2 results."""
    height, width = out.shape[2:]
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

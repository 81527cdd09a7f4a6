"""cam_reduce in plain torch: the specification."""

import torch
from torch import Tensor
from torch.nn import functional

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@torch.no_grad()
def cam_reduce(activations: Tensor, weights: Tensor, relu: bool, out: Tensor) -> None:
    """Sums over channels in the dtype of `out`, rectifies, resizes."""
    if out.numel() == 0:
        return
    maps = torch.einsum("nkc,nc...->nk...", weights, activations.to(out.dtype))
    if relu:
        maps = maps.relu()
    if maps.shape != out.shape:
        maps = functional.interpolate(maps, out.shape[2:], mode=_MODES[maps.dim() - 2], align_corners=False)
    out.copy_(maps)

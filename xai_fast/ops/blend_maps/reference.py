"""blend_maps in plain torch: the specification."""

import torch
from torch import Tensor
from torch.nn import functional

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@torch.no_grad()
def blend_maps(inputs: Tensor, maps: Tensor, sample: Tensor, number: Tensor, scale: Tensor, out: Tensor) -> None:
    """Resizes the rows' maps and multiplies, in the dtype of `maps`."""
    if out.numel() == 0:
        return
    axes = inputs.dim() - 2
    masks = functional.interpolate(maps[number][:, None], inputs.shape[2:], mode=_MODES[axes], align_corners=False)
    masks *= scale.to(maps.dtype).view(-1, *[1] * (axes + 1))
    out.copy_(inputs[sample].to(maps.dtype) * masks)

"""path_points in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def path_points(
    inputs: Tensor, baseline: Tensor, sample: Tensor, reference: Tensor, alpha: Tensor, out: Tensor
) -> None:
    """Writes each row: a share of the way from one end of its path to the other, from the nearer end."""
    computed = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    for row, (end, start, share) in enumerate(zip(sample.tolist(), reference.tolist(), alpha, strict=True)):
        near, far = baseline[start].to(computed), inputs[end].to(computed)
        if share >= 0.5:
            near, far, share = far, near, 1 - share
        out[row].copy_(near + share.to(computed) * (far - near))

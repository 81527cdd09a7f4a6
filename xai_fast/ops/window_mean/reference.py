"""window_mean in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def window_mean(values: Tensor, boxes: Tensor, out: Tensor) -> None:
    """Adds window after window in float64, then divides by how many covered each element."""
    total = torch.zeros(out.shape, dtype=torch.float64, device=out.device)
    count = torch.zeros(out.shape[2:], dtype=torch.float64, device=out.device)
    for window, box in enumerate(boxes.tolist()):
        inside = tuple(slice(start, stop) for start, stop in box)
        per_map = values[:, window].to(torch.float64)
        total[:, :, *inside] += per_map.reshape(*per_map.shape, *[1] * count.dim())
        count[inside] += 1
    out.copy_(total / count.clamp(min=1))

"""hide_windows in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def hide_windows(inputs: Tensor, baseline: Tensor, sample: Tensor, boxes: Tensor, out: Tensor) -> None:
    """Writes each row: its input, then the baseline inside its box."""
    for row, (index, box) in enumerate(zip(sample.tolist(), boxes.tolist(), strict=True)):
        inside = tuple(slice(start, stop) for start, stop in box)
        out[row].copy_(inputs[index])
        out[row][inside].copy_(baseline[index][inside])

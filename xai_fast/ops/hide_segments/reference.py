"""hide_segments in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def hide_segments(inputs: Tensor, baseline: Tensor, labels: Tensor, sample: Tensor, keep: Tensor, out: Tensor) -> None:
    """Writes each row: its input where the position has no segment or a kept one, else the baseline.

    `labels` is (N, C, *S), the same for every channel.
    """
    for row, index in enumerate(sample.tolist()):
        segment = labels[index]
        kept = (segment < 0) | keep[row][segment.clamp(min=0)] if keep.shape[1] else segment < 0
        out[row].copy_(torch.where(kept, inputs[index], baseline[index]))

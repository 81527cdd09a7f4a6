"""pass_bits in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def pass_bits(gradient: Tensor, bits: Tensor, out: Tensor) -> None:
    """Writes element i, in the order of memory, where bit i % 64 of word i // 64 is set, and 0 elsewhere."""
    count = gradient.numel()
    through = (bits[:, None] >> torch.arange(64, device=bits.device) & 1).view(-1)[:count].bool()
    flat = gradient.as_strided((count,), (1,))
    out.as_strided((count,), (1,)).copy_(torch.where(through, flat, torch.zeros_like(flat)))

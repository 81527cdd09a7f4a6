"""sign_bits in plain torch: the specification."""

import torch
from torch import Tensor


@torch.no_grad()
def sign_bits(values: Tensor, bits: Tensor) -> None:
    """Sets bit i % 64 of word i // 64 where element i, in the order of memory, is not zero or below."""
    through = ~(values.as_strided((values.numel(),), (1,)) <= 0)
    padded = torch.nn.functional.pad(through, (0, 64 * len(bits) - len(through))).view(-1, 64)
    # The highest bit is the sign; sums of distinct powers of two do not carry.
    bits.copy_((padded.long() << torch.arange(64, device=values.device)).sum(1))

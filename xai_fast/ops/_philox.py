"""Philox4x32-10 in plain torch: random words that depend on nothing but where they are asked for."""

from __future__ import annotations

import torch
from torch import Tensor

LOW = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)  # of the key, from round to round
ROUNDS = 10

# Blocks of four words per (seed, key, draw). Noise takes the lower half, four elements a block; the upper half is
# for whatever else a draw needs, so that no two uses ever meet.
BLOCKS_OF_NOISE = 2**31


def words(seed: int, key: Tensor, draw: Tensor, block: Tensor) -> Tensor:
    """Returns the four words of each block: LongTensor (..., 4) with values in [0, 2^32).

    The generator is that of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". Its counter is
    (block, draw, lower half of key, upper half of key), its key (lower half of seed, upper half of seed).

    Args:
        seed: in [0, 2^64).
        key: LongTensor, any integers, read as 64 bits.
        draw: LongTensor with values in [0, 2^32).
        block: LongTensor with values in [0, 2^32). The three broadcast against each other.
    """
    c1, c2, c3, c0 = torch.broadcast_tensors(draw, key & LOW, (key >> 32) & LOW, block)
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(ROUNDS):
        # A product of two words overflows int64 into the sign, but its 64 bits are right, and so are both halves.
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (second >> 32 & LOW) ^ c1 ^ k0, second & LOW
        c2, c3 = (first >> 32 & LOW) ^ c3 ^ k1, first & LOW
        k0, k1 = (k0 + INCREMENTS[0]) & LOW, (k1 + INCREMENTS[1]) & LOW
    return torch.stack((c0, c1, c2, c3), dim=-1)

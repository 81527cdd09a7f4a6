"""Keyed random numbers: the same for a sample's draw whatever the batch, the order and the number of devices."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.ops._philox import BLOCKS_OF_NOISE, words


def uniforms(seed: int, key: Tensor, draw: Tensor, count: int) -> Tensor:
    """Returns `count` uniform numbers per row: float64 (M, count) in [0, 1), multiples of 2^-53.

    Number i of a row depends on (seed, key, draw, i) and nothing else. It is made of words 2 (i mod 2) and the next of
    block 2^31 + i // 2 of `xai_fast.ops._philox.words`: beyond the blocks that `xai_fast.ops.add_noise` reads for the
    same seed, key and draw, so that numbers drawn beside noise are independent of it.

    Args:
        seed: in [0, 2^64).
        key: LongTensor (M,), any integers: the id of each row's sample.
        draw: LongTensor (M,) with values in [0, 2^32), on the device of `key`.
        count: how many numbers a draw needs, up to 2^32.
    """
    block = BLOCKS_OF_NOISE + torch.arange((count + 1) // 2, device=key.device)
    drawn = words(seed, key[:, None], draw[:, None], block).unflatten(-1, (2, 2))
    high, low = (drawn >> torch.arange(5, 7, device=key.device)).unbind(-1)
    return ((high * 2**26 + low).to(torch.float64) * 2.0**-53).flatten(1)[:, :count]


def choices(uniform: Tensor, options: int | Tensor) -> Tensor:
    """Returns which of `options` (at least one) each uniform number in [0, 1) selects: LongTensor in [0, options).

    `options` is one number, or a LongTensor of numbers that broadcasts to `uniform`.

    The options are equally likely to within 2^-51.
    """
    return (uniform * options).to(torch.int64)

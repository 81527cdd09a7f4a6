"""byte_hash in plain torch: the specification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

FACTOR = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as a signed number; odd, so that products are unique
TURN, STEPS, LANES = 29, 16, 32
BLOCK = STEPS * LANES * 8  # bytes
_AT_ONCE = {"cpu": 1 << 20}  # bytes: what is computed with stays in a processor's cache
_AT_ONCE_ELSEWHERE = 1 << 26


@torch.no_grad()
def byte_hash(tensors: Sequence[Tensor], out: Tensor) -> None:
    """Hashes blocks of 4 KiB, then the hashes of those as if they were data, until one is left per tensor."""
    level = [_bytes_of(tensor) for tensor in tensors]
    words = list(_of_blocks(level))
    while many := [i for i, of_tensor in enumerate(words) if len(of_tensor) > 1]:
        for i, of_blocks in zip(many, _of_blocks([words[i].view(torch.uint8) for i in many]), strict=True):
            words[i] = of_blocks
    roots = torch.cat([of_tensor if len(of_tensor) else out.new_zeros(1) for of_tensor in words])
    # The length tells data from the same data with zeros behind it.
    sizes = torch.tensor([len(data) for data in level], device=out.device)
    out.copy_((roots ^ sizes) * FACTOR)


def _bytes_of(tensor: Tensor) -> Tensor:
    count = tensor.numel() if tensor.data_ptr() else 0  # its memory may have been given back
    return tensor.detach().as_strided((count,), (1,)).view(torch.uint8)


def _of_blocks(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Per part, a word for each of its blocks; the last is filled up with zeros."""
    most = _AT_ONCE.get(parts[0].device.type, _AT_ONCE_ELSEWHERE)
    pieces = [(i, piece) for i, part in enumerate(parts) for piece in part.split(most)]
    found: list[list[Tensor]] = [[] for _ in parts]
    while pieces:
        count = size = 0
        while count < len(pieces) and (not count or size + len(pieces[count][1]) <= most):
            size += len(pieces[count][1])
            count += 1
        batch, pieces = pieces[:count], pieces[count:]
        padded = [filled for _, piece in batch for filled in (piece, piece.new_zeros(-len(piece) % BLOCK))]
        words = _hashed(torch.cat(padded).view(torch.int64).view(-1, STEPS, LANES))
        for (i, _), own in zip(batch, words.split([-(-len(piece) // BLOCK) for _, piece in batch]), strict=True):
            found[i].append(own)
    for own in found:
        yield own[0] if len(own) == 1 else torch.cat(own)


def _hashed(blocks: Tensor) -> Tensor:
    """A word (B,) for each of the blocks (B, STEPS, LANES)."""
    lanes = (torch.arange(1, LANES + 1, device=blocks.device) * FACTOR).repeat(len(blocks), 1)
    for step in range(STEPS):
        lanes ^= blocks[:, step]
        _turn(lanes)
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes, other = lanes[:, :half], lanes[:, half:]
        _turn(lanes)
        lanes ^= other
    word = lanes[:, 0]
    return (word ^ _shifted(word, 32)) * FACTOR


def _turn(words: Tensor) -> None:
    """Rotates and multiplies, in place: a bijection that carries every bit to others."""
    high = _shifted(words, 64 - TURN)
    words <<= TURN
    words |= high
    words *= FACTOR


def _shifted(words: Tensor, by: int) -> Tensor:
    """To the right, zeros following, where torch would repeat the sign."""
    return (words >> by).bitwise_and_(2 ** (64 - by) - 1)

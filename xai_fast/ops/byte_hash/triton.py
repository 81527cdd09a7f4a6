"""byte_hash in Triton: one program hashes one block, then the words of the blocks are hashed as if they were data.

Where blocks begin is worked out once for the addresses of a model's tensors, so that a call sends nothing over.
"""

# ruff: noqa: ANN001  (a kernel's arguments are pointers and integers that Triton types)
# A launch passes plain numbers where the kernel declares constexpr.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import BLOCK, FACTOR, LANES, STEPS, TURN

_WORD = 8  # bytes


@triton.jit
def turned(words, FACTOR: tl.constexpr, TURN: tl.constexpr) -> tl.tensor:
    """Words (uint64) rotated to the left and multiplied."""
    return ((words << TURN) | (words >> (64 - TURN))) * FACTOR


@triton.jit
def block_hash_kernel(
    at, left, base, words,
    FACTOR: tl.constexpr, TURN: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr,
) -> None:  # fmt: skip
    """Writes the word of one block of STEPS x LANES words, of which `left` bytes are data and the others 0."""
    block = tl.program_id(0)
    address = tl.load(at + block) + base
    count = tl.load(left + block)
    aligned = address % 8 == 0
    ragged = (count < STEPS * LANES * 8) | (aligned == 0)  # then words are put together byte by byte
    lane = tl.arange(0, LANES)
    lanes = (lane + 1).to(tl.uint64) * FACTOR
    for step in tl.static_range(STEPS):
        start = (step * LANES + lane) * 8
        whole = aligned & (start + 8 <= count)
        word = tl.load((address + start).to(tl.pointer_type(tl.uint64)), mask=whole, other=0)
        if ragged:
            for byte in tl.static_range(8):
                inside = (start + byte < count) & (whole == 0)
                part = tl.load((address + start + byte).to(tl.pointer_type(tl.uint8)), mask=inside, other=0)
                word = word | (part.to(tl.uint64) << (8 * byte))
        lanes = turned(lanes ^ word, FACTOR, TURN)
    for fold in tl.static_range(5):  # from 32 lanes to one
        halves = tl.permute(tl.reshape(lanes, [2, LANES >> (fold + 1)]), [1, 0])
        first, second = tl.split(halves)
        lanes = turned(first, FACTOR, TURN) ^ second
    result = (lanes ^ (lanes >> 32)) * FACTOR
    tl.store(words + block + tl.arange(0, 1), result.to(tl.int64))


@dataclass(frozen=True)
class Level:
    """Blocks that are hashed in one launch.

    Attributes:
        at: LongTensor (B,), where each block begins: in memory, or, after the first level, in bytes from the first of
            all words.
        left: IntTensor (B,), how many bytes of it are data.
        first: where among all words those of this level begin.
    """

    at: Tensor
    left: Tensor
    first: int


@dataclass(frozen=True)
class Blocks:
    """All blocks of some tensors.

    Attributes:
        levels: one after the other.
        count: of all words, and a zero behind them.
        roots: LongTensor (T,), the last word of each tensor.
        sizes: LongTensor (T,), its bytes.
    """

    levels: tuple[Level, ...]
    count: int
    roots: Tensor
    sizes: Tensor


@functools.lru_cache(maxsize=16)
def blocks_of(spans: tuple[tuple[int, int], ...], device: torch.device) -> Blocks:
    """The blocks of memory given as (address, bytes)."""
    levels: list[Level] = []
    pending = [(number, address, size) for number, (address, size) in enumerate(spans) if size]
    roots, count = [-1] * len(spans), 0
    while pending:
        at: list[int] = []
        left: list[int] = []
        following: list[tuple[int, int, int]] = []
        for number, start, size in pending:
            own, blocks = count + len(at), -(-size // BLOCK)
            at.extend(range(start, start + size, BLOCK))
            left.extend([BLOCK] * (blocks - 1) + [size - BLOCK * (blocks - 1)])
            roots[number] = own
            if blocks > 1:
                following.append((number, own * _WORD, blocks * _WORD))
        levels.append(Level(torch.tensor(at, device=device), torch.tensor(left, device=device).int(), count))
        count, pending = count + len(at), following
    ends = torch.tensor([root if root >= 0 else count for root in roots], device=device)
    return Blocks(tuple(levels), count, ends, torch.tensor([size for _, size in spans], device=device))


def byte_hash(tensors: Sequence[Tensor], out: Tensor) -> None:
    """Launches one program per block, level by level."""
    addresses = [(tensor.data_ptr(), tensor.nbytes) for tensor in tensors]
    # Memory that was given back has no address.
    blocks = blocks_of(tuple((address, size if address else 0) for address, size in addresses), out.device)
    words = torch.zeros(blocks.count + 1, dtype=torch.int64, device=out.device)
    with torch.cuda.device_of(out):
        for number, level in enumerate(blocks.levels):
            base = words.data_ptr() if number else 0
            block_hash_kernel[(len(level.at),)](
                level.at, level.left, base, words[level.first :],
                FACTOR % 2**64, TURN, STEPS, LANES, num_warps=1,
            )  # fmt: skip
    out.copy_((words[blocks.roots] ^ blocks.sizes) * FACTOR)

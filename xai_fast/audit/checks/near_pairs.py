"""Pairs among many codes of bits that differ in few of them, found without comparing each with each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BAND = 2  # bytes
_WIDEST = 32  # codes of one band that each is compared with: where more share a band, those with the nearest codes
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint8)


def near_pairs(codes: NDArray[np.uint8], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (m, 2) of rows of codes (n, B) that differ in at most `most` bits, and in how many; B is even.

    Two codes of B / 2 bands that differ in fewer bits than there are bands have a band in common (Norouzi et al. 2012,
    "Fast search in Hamming space with multi-index hashing"), so that sorting by each band puts them side by side. Of
    those that differ in a few more, most are found: bits that differ are seldom spread evenly. Memory and time are of
    the order of n, but for bands that many share, of which each code is compared with the `_WIDEST` next in order.
    """
    order = np.lexsort(codes.T[::-1])
    again = (codes[order[1:]] == codes[order[:-1]]).all(1)  # equal codes are one, and a chain of pairs
    first = order[np.concatenate([[True], ~again])] if len(codes) else order
    found = [np.stack([order[:-1][again], order[1:][again]], 1)]
    found += [first[_within(codes[first], start, most)] for start in range(0, codes.shape[1], _BAND)]
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs, differing(codes[pairs[:, 0]], codes[pairs[:, 1]])


def differing(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(m,) how many bits of codes (m, B) differ."""
    return _BITS[codes ^ others].sum(-1, dtype=np.int64)


def _within(codes: NDArray[np.uint8], start: int, most: int) -> NDArray[np.int64]:
    """Pairs that share a band, (m, 2)."""
    turned = np.roll(codes, -start, axis=1)
    order = np.lexsort(turned.T[::-1])
    band = turned[order, :_BAND].astype(np.int64) @ (256, 1)
    left, found = np.arange(len(codes)), [np.empty((0, 2), np.int64)]
    for step in range(1, _WIDEST + 1):
        left = left[left + step < len(codes)]
        left = left[band[left] == band[left + step]]
        if not len(left):
            break
        one, other = order[left], order[left + step]
        near = differing(codes[one], codes[other]) <= most
        found.append(np.stack([one[near], other[near]], 1))
    return np.concatenate(found)

"""The codes that pictures would have if they were mirrored or turned, from their codes alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SIDE = 8
_ODD = np.arange(_SIDE) % 2 == 0  # of the first wave there is half of one, which is turned about when it is mirrored


def turned(waves: NDArray[np.integer]) -> Iterator[NDArray[np.uint8]]:
    """Codes (n, 8) bytes of pictures that are mirrored or turned, of their codes (n,) `waves`; `upright` gives theirs.

    A wave (v, u), of u half periods across and v down, becomes itself or its negative where the picture is mirrored,
    and the wave (u, v) where rows become columns. Of the eight ways to put a picture the first, which changes nothing,
    is left out, and one of the two quarter turns: two pictures are a quarter turn apart whichever is turned.
    """
    bits = np.unpackbits(upright(waves), axis=1).reshape(-1, _SIDE, _SIDE).astype(bool)
    across = np.broadcast_to(_ODD, (_SIDE, _SIDE))
    down, swapped = across.T, bits.transpose(0, 2, 1)
    for one in (bits ^ across, bits ^ down, bits ^ across ^ down, swapped, swapped ^ across ^ down, swapped ^ across):
        yield np.packbits(one.reshape(-1, _SIDE * _SIDE), axis=1)


def upright(waves: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The bytes (n, 8) of codes (n,), the sign of the slowest wave first."""
    return waves.astype(">i8").view(np.uint8).reshape(-1, 8)

"""What is measured of a picture while it is decoded: how bright, sharp and coloured it is, and by what it is known."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MEASURED = 256  # the longer side at which a picture's properties are measured
_GREY = (0.299, 0.587, 0.114)
_SIDE, _LOW = 32, 8  # of the picture whose slow waves are taken, and how many of them each way
_WAVES = np.cos(np.pi * np.arange(1, _LOW + 1)[:, None] * (2 * np.arange(_SIDE) + 1) / (2 * _SIDE))

Measured = tuple[list[float], dict[str, float | int]]
"""`store.schema.PROPERTIES` in order, and `store.schema.LOOKS` by name."""


def measured(view: Image.Image) -> Measured:
    """Of the picture that the model sees."""
    small = view.copy()
    small.thumbnail((_MEASURED, _MEASURED), Image.Resampling.BOX)
    colours = np.asarray(small.convert("RGB"), dtype=np.float64) / 255
    grey = colours @ _GREY
    return _properties(colours, grey), _looks(colours, grey) | _codes(view)


def _properties(colours: NDArray[np.float64], grey: NDArray[np.float64]) -> list[float]:
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    sharpness = float(around.std()) if inner.size else 0.0
    return [float(grey.mean()), float(grey.std()), *map(float, colours.mean((0, 1))), sharpness]


def _looks(colours: NDArray[np.float64], grey: NDArray[np.float64]) -> dict[str, float | int]:
    darkest, brightest = np.quantile(grey, (0.05, 0.99))
    shares = np.bincount((255 * grey).round().astype(int).ravel(), minlength=256) / grey.size
    shares = shares[shares > 0]
    return {
        "darkest": float(darkest),
        "brightest": float(brightest),
        "colour": float(np.quantile(np.ptp(colours, axis=2), 0.99)),
        "entropy": float(-(shares * np.log2(shares)).sum()),
    }


def _codes(view: Image.Image) -> dict[str, float | int]:
    """See `store.schema.CODES`.

    Waves are those of Zauner (2010, "Implementation and benchmarking of perceptual image hash functions"), without the
    mean, and of each its sign, so that the code of a picture that is mirrored or turned follows from it
    (`checks.turned`); steps are between the columns of a picture of 9 x 8.
    """
    # As floats: of textures, whose parts have nearly one mean, rounding would be what is coded.
    grey = view.convert("L").convert("F")
    waves = _WAVES @ np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64) @ _WAVES.T
    steps = np.diff(np.asarray(grey.resize((_LOW + 1, _LOW), Image.Resampling.BOX), np.float64), axis=1)
    content = blake2b(repr(view.size).encode() + view.convert("RGB").tobytes(), digest_size=8).digest()
    bits = (waves > 0, steps > 0)
    codes = [content, *(np.packbits(one.ravel()).tobytes() for one in bits)]
    numbers = (int.from_bytes(code, "big", signed=True) for code in codes)
    return dict(zip(("content", "signs", "steps"), numbers, strict=True))

"""The twelve real photographs that scikit-image ships with, by class name; read from disk when first asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

CLASSES = (
    "astronaut",
    "brick",
    "cat",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "moon",
    "motorcycle",
    "page",
    "retina",
    "rocket",
)
"""The demonstration's classes, in the order of the network's outputs."""


@cache
def _pixels(name: str) -> np.ndarray:
    from skimage import data

    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    pixels.setflags(write=False)  # shared by every caller
    return pixels


def photograph(name: str) -> Image.Image:
    """One photograph as it was taken: RGB or greyscale, between 191 and 1411 pixels a side.

    Args:
        name: one of `CLASSES`.

    Raises:
        ValueError: there is no such photograph.
    """
    from PIL import Image

    if name not in CLASSES:
        raise ValueError(f"`name` is {name!r}; the demonstration's photographs are {', '.join(CLASSES)}")
    return Image.fromarray(_pixels(name))


def photographs(names: tuple[str, ...] = CLASSES) -> list[Image.Image]:
    """The photographs of these classes, in this order."""
    return [photograph(name) for name in names]

"""Regions over a photograph: green speaks for the class, red against it, each outlined."""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

GREEN, RED = (0, 150, 60), (214, 30, 40)


def regions(view: Image.Image, values: np.ndarray, *, count: int, least: float = 0.0) -> Image.Image:
    """The photograph with the segments that weigh most laid over it.

    Args:
        view: the photograph.
        values: (H, W), every position the weight of its segment.
        count: how many segments are shown at most, those of the largest weights either way.
        least: weights below it are not shown.
    """
    weights = sorted(np.unique(values), key=abs, reverse=True)[:count]
    shown = np.isin(values, [weight for weight in weights if abs(weight) > least])
    picture = np.asarray(view.convert("RGB"), dtype=float)
    picture = 0.55 * picture + 0.45 * picture.mean(2, keepdims=True)  # paler, so that the tints stand out
    for colour, where in ((GREEN, shown & (values > 0)), (RED, shown & (values < 0))):
        picture[where] = 0.6 * picture[where] + 0.4 * np.array(colour)
        picture[where & find_boundaries(np.where(shown, values, 0), mode="inner")] = colour
    return Image.fromarray(picture.round().astype(np.uint8))

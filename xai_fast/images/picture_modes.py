"""From any mode of Pillow's to RGB or grey: transparency left out, wide numbers by a stated range, or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_ROWS_AT_ONCE = 1_000_000  # pixels of a wide picture that are converted together
_DARKEST = 1 / 16  # share of the range that some pixel must reach; below, the picture would come out black
_SIXTEEN_BITS = (0.0, 65535.0)
_TIFF_RANGES = ((340, 341), (280, 281))  # SMinSampleValue and SMaxSampleValue, MinSampleValue and MaxSampleValue


def rgb_or_grey(photo: Image.Image) -> Image.Image:
    """The picture in mode RGB or L.

    Transparency is left out, as the usual pipelines do it. Numbers wider than 8 bits are scaled by their stated range:
    what a TIFF's tags say; else 0 to 65535 for 16 bits (also those of PNG and PPM that Pillow gives as mode I), and
    [0, 1] for floats.

    Raises:
        ValueError: the range is not stated, values lie outside it, or so low in it that nothing would be seen; or
            without its transparency the picture is one colour.
    """
    if photo.mode == "F" or photo.mode.startswith("I"):
        low, high = _range_of(photo)
        return _scaled(photo, low, high)
    if photo.mode in ("L", "RGB"):
        return photo
    colours = photo.convert("RGBA" if "transparency" in photo.info else "RGB").convert("RGB")
    extrema: Any = colours.getextrema()
    if photo.has_transparency_data and all(low == high for low, high in extrema):
        low, high = photo.convert("RGBA").getchannel("A").getextrema()
        if low != high:
            raise ValueError("all of the picture is in its transparency, which models do not see; lay it on a ground")
    return colours


def _range_of(photo: Image.Image) -> tuple[float, float]:
    tags: Any = getattr(photo, "tag_v2", {})
    for lowest, highest in _TIFF_RANGES:
        if highest in tags:
            low, high = (_first(tags.get(tag, 0)) for tag in (lowest, highest))
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise ValueError(f"its tags state a range from {low:g} to {high:g}, which is none")
            return low, high
    if photo.mode == "F":
        return 0.0, 1.0
    if photo.mode.startswith("I;16") or photo.format in ("PNG", "PPM"):
        return _SIXTEEN_BITS
    raise ValueError(
        "a picture of 32-bit integers (mode I), whose range is not stated: nobody can say which number is white; "
        "save it with 8 or 16 bits, or give floats in [0, 1]"
    )


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, tuple) else value)


def _scaled(photo: Image.Image, low: float, high: float) -> Image.Image:
    """In grey, `low` black and `high` white; in strips, because float64 of a whole picture is eight times its size."""
    width, height = photo.size
    grey = np.empty((height, width), dtype=np.uint8)
    rows = max(1, _ROWS_AT_ONCE // max(1, width))
    least, most = np.inf, -np.inf
    for top in range(0, height, rows):
        strip = np.asarray(photo.crop((0, top, width, min(top + rows, height))), dtype=np.float64)
        if not np.isfinite(strip).all():
            raise ValueError("the picture holds NaN or infinity, which are no brightness")
        least, most = min(least, strip.min()), max(most, strip.max())
        grey[top : top + rows] = np.round(np.clip((strip - low) / (high - low), 0, 1) * 255)
    if least < low or most > high:
        raise ValueError(
            f"a picture of mode {photo.mode} with values from {least:g} to {most:g}, outside the range from {low:g} "
            f"to {high:g} that pictures of this kind have; scale it, or save it with 8 bits"
        )
    if (most - low) < _DARKEST * (high - low):
        raise ValueError(
            f"a picture of mode {photo.mode} with values from {least:g} to {most:g}, which is black in its range from "
            f"{low:g} to {high:g}; scale it to its range, or save it with 8 bits"
        )
    return Image.fromarray(grey)

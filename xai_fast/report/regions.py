"""Several maps in one picture: each position in the colour of the strongest; and a legend that says what each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from xai_fast.report.colours import srgb_from_oklab
from xai_fast.report.lettering import fit
from xai_fast.report.overlay import resize_map
from xai_fast.report.photo import as_photo, as_picture

Colour = tuple[float, float, float]

_WHITE, _INK, _SOFT = (255, 255, 255), (24, 24, 27), (103, 103, 112)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_GROUND = 0.45  # of the photo's contrast that is left under the colours
_LEAST = 0.12  # of a map's largest value, below which nothing is drawn
_LINE, _SIZE, _SMALL = 1.55, 19, 15  # height of a line as a share of the letters, and those in pixels
_NARROW = 300  # pixels: columns of a legend are at least this wide


def distinct(count: int) -> list[Colour]:
    """As many colours that are told apart, sRGB in [0, 1]: hues all around, neighbours by lightness too."""
    found = []
    for number in range(count):
        hue = 2 * np.pi * (number / count + 0.08)
        light, chroma = (0.66, 0.2) if number % 2 == 0 else (0.8, 0.16)
        lab = np.array([light, chroma * np.cos(hue), chroma * np.sin(hue)])
        red, green, blue = np.clip(srgb_from_oklab(lab), 0, 1).tolist()
        found.append((red, green, blue))
    return found


def regions(
    photo: Image.Image | ArrayLike, maps: ArrayLike, colours: Sequence[Colour], *, alpha: float = 0.8
) -> Image.Image:
    """A photo, greyed, on which each position has the colour of the map that is largest there, by how large it is.

    Args:
        photo: what `as_photo` takes; the picture has its size.
        maps: (k, h, w) in [0, 1], which cover the whole photo at any resolution.
        colours: one per map.
        alpha: weight of the colours where a map is 1.

    Raises:
        ValueError: other shapes, or values outside [0, 1].
    """
    values = np.asarray(maps, dtype=np.float32)
    if values.ndim != 3 or len(values) != len(colours):
        raise ValueError(f"`maps` has shape {values.shape} for {len(colours)} colours; give (k, h, w), a map for each")
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"`maps` holds values from {values.min()} to {values.max()}; give numbers in [0, 1]")
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` is {alpha}; give a number in [0, 1]")
    picture = as_photo(photo)
    large = np.stack([resize_map(one, (picture.height, picture.width)) for one in values])
    strongest, strength = large.argmax(0), large.max(0)
    weight = alpha * np.clip((strength - _LEAST) / (1 - _LEAST), 0, 1) ** 0.7
    ground = np.asarray(picture, dtype=np.float32) / 255
    grey = (ground @ _LUMA)[..., None]
    paper = 1 - (1 - grey) * _GROUND - 0.1
    # Colour shades what is dark in the photo, so that forms stay visible under it.
    ink = np.asarray(colours, dtype=np.float32)[strongest] * (0.72 + 0.28 * grey)
    weight = weight[..., None]
    return as_picture(paper * (1 - weight) + ink * weight)


@dataclass(frozen=True)
class Entry:
    """A line of a legend.

    Attributes:
        colour: of the swatch.
        title: what it is.
        note: more about it, in smaller letters below.
    """

    colour: Colour
    title: str
    note: str = ""


def legend(entries: Sequence[Entry], width: int, margin: int) -> Image.Image:
    """Swatches with words, in as many columns as fit, row by row.

    Args:
        entries: from left to right, then down.
        width: in pixels.
        margin: left, right and below, in pixels.
    """
    pad = 14
    columns = max(1, min(len(entries), (width - 2 * margin) // _NARROW))
    across = (width - 2 * margin + pad) // columns
    line, small = round(_SIZE * _LINE), round(_SMALL * _LINE)
    high = line + (small if any(entry.note for entry in entries) else 0) + pad
    picture = Image.new("RGB", (width, high * -(-len(entries) // columns) - pad + margin), _WHITE)
    draw = ImageDraw.Draw(picture)
    for number, entry in enumerate(entries):
        left, top = margin + number % columns * across, number // columns * high
        side = high - pad
        swatch = tuple(round(255 * part) for part in entry.colour)
        draw.rounded_rectangle((left, top, left + side - 1, top + side - 1), radius=5, fill=swatch)
        room = across - pad - side - 10
        lines = ((entry.title, _SIZE, line // 2, _INK), (entry.note, _SMALL, line + small // 2, _SOFT))
        for text, size, down, ink in lines:
            font, drawn = fit(text, size, room, size * 0.8)
            if drawn:
                draw.text((left + side + 10, top + down), drawn, font=font, fill=ink, anchor="lm")
    return picture


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other, on white, at the width of the widest."""
    width = max(part.width for part in parts)
    whole = Image.new("RGB", (width, sum(part.height for part in parts)), _WHITE)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole

"""A box around an object in a picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

_LINE, _RIM = (255, 255, 255), (24, 24, 27)


def boxed(picture: Image.Image, box: Sequence[float]) -> Image.Image:
    """A copy of a picture with a box in it: a white line within a dark one, seen on any ground.

    Args:
        picture: RGB.
        box: x1, y1, x2, y2 as shares of its width and height; what lies outside is drawn along the edge.
    """
    drawn = picture.convert("RGB")
    thick = max(1, round(min(drawn.size) / 160))
    sides = (drawn.width, drawn.height) * 2
    x1, y1, x2, y2 = (round(min(max(share, 0.0), 1.0) * (side - 1)) for share, side in zip(box, sides, strict=True))
    draw = ImageDraw.Draw(drawn)
    for inset, colour in ((0, _RIM), (thick, _LINE)):
        corners = (x1 + inset, y1 + inset, x2 - inset, y2 - inset)
        if corners[0] <= corners[2] and corners[1] <= corners[3]:
            draw.rectangle(corners, outline=colour, width=thick)
    return drawn

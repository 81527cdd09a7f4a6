"""One photo under one heatmap: blended, by strength, inked on a faded print of the photo, or the map alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from xai_fast.report.colours import ColourMap, default, named
from xai_fast.report.lettering import fit
from xai_fast.report.photo import as_photo, as_picture
from xai_fast.report.scale import EMPTY, Scale, as_map

Style = Literal["alpha", "opacity", "faded", "heatmap"]

ALPHA = {"alpha": 0.6, "opacity": 0.6, "faded": 1.0, "heatmap": 1.0}
"""Weight of the colours in each style, unless told otherwise."""
# Under full colour the photo loses this share of its own colour: hue means the map, structure the photo.
_DESATURATE = 0.75
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Contrast that a faded photo keeps: enough to find one's way in it, too little to be taken for the map. Of dark photos
# it is less, so that the paper stays this light on average.
_FADED, _PAPER = 0.4, 0.75
_LABEL = (90, 40)  # width and height in pixels from which on a picture has room for words
_INK = (24, 24, 27)


@dataclass(frozen=True, eq=False)
class Overlay:
    """A drawn map, and what its colours mean."""

    picture: Image.Image
    scale: Scale
    colours: ColourMap


def overlay(
    photo: Image.Image | ArrayLike,
    heatmap: ArrayLike,
    *,
    signed: bool,
    scale: Scale | None = None,
    style: Style = "alpha",
    alpha: float | None = None,
    colours: str | ColourMap | None = None,
    smoothing: float = 0.0,
) -> Image.Image:
    """Draw a heatmap over the photo it explains. A map that is zero everywhere says so in the picture.

    Args:
        photo: what `as_photo` takes; the picture has its size.
        heatmap: (h, w) real values that cover the whole photo, at any resolution; enlarged bilinearly with
            half-pixel centres (`align_corners=False`).
        signed: whether the sign carries meaning; chooses the colours and centres the scale on zero.
        scale: limits of the colours; None: `Scale.of` what is drawn. Share one to compare several maps.
        style: "alpha" blends all over at `alpha`; "opacity" blends by the strength of the value, up to
            `alpha`, so the photo shows unchanged where the map says nothing; "faded" prints the map like ink on a
            pale grey copy of the photo, for maps that a colourful one would hide; "heatmap" is the map alone.
        alpha: weight of the colour in [0, 1]; None: 0.6, under "faded" 1.
        colours: a colour map or its name; None: "polar" for signed maps, else "ember", under "faded" "reds".
        smoothing: sigma of a Gaussian by which the map is smoothed before it is drawn, as a share of its shorter
            side: 0.01 makes forms of a map in which neighbouring pixels differ. 0 draws the values as they are.

    Returns:
        An RGB image.

    Raises:
        ValueError: a wrong shape or range, NaN, an unknown style or colour map, a scale of the other kind.
        TypeError: something that is no picture, no map or no scale.
    """
    return draw(
        photo, heatmap, signed=signed, scale=scale, style=style, alpha=alpha, colours=colours, smoothing=smoothing
    ).picture


def draw(
    photo: Image.Image | ArrayLike,
    heatmap: ArrayLike,
    *,
    signed: bool,
    scale: Scale | None = None,
    style: Style = "alpha",
    alpha: float | None = None,
    colours: str | ColourMap | None = None,
    smoothing: float = 0.0,
) -> Overlay:
    """As `overlay`, with the scale and the colour map that were used, which a colour bar shows."""
    values = as_map(heatmap)
    _check(signed, scale, style, alpha, smoothing)
    values = smoothed(values, smoothing)
    scale = Scale.of(values, signed=signed) if scale is None else scale
    table = _colour_map(colours, signed, style)
    picture = as_photo(photo)
    empty = not values.any()

    values = resize_map(values, (picture.height, picture.width))
    colour = table(scale.positions(values))
    weight = ALPHA[style] if alpha is None else alpha
    if style != "heatmap":
        ground = np.asarray(picture, dtype=np.float32) / 255
        if style == "faded":
            colour = _printed(ground, colour, table(0.5 if signed else 0.0), weight)
        else:
            strength = scale.strengths(values) if style == "opacity" else np.ones_like(values)
            # Concave, because weak values are pale already: a weight that fades with them as well would lose them.
            colour = _blend(ground, colour, (strength * (2 - strength))[..., None], weight)
    drawn = as_picture(colour)
    return Overlay(_labelled(drawn, EMPTY) if empty else drawn, scale, table)


def smoothed(values: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """A map (h, w) after a Gaussian whose sigma is this share of the shorter side; edges are repeated.

    Signs cancel: what is left at a place is whether its surroundings speak for the target or against it.
    """
    if not share:
        return values
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, share * min(values.shape), mode="nearest"), dtype=np.float32)


def resize_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map (h, w) at `size` (H, W): bilinear with half-pixel centres, antialiased when it shrinks."""
    height, width = size
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def _blend(photo: NDArray, colour: NDArray, weight: NDArray, alpha: float) -> NDArray:
    grey = (photo @ _LUMA)[..., None]
    # Tied to the colour's own weight: where that is 0 the photo comes through to the last bit.
    opacity = alpha * weight
    ground = photo + _DESATURATE * weight * min(1.0, 2 * alpha) * (grey - photo)
    return ground + opacity * (colour - ground)


def _printed(photo: NDArray, colour: NDArray, paper: NDArray, alpha: float) -> NDArray:
    """Colours multiplied on a pale grey photo, as ink on paper: neither covers the other.

    `paper` is the colour that stands for nothing. Where that is dark all is done in the negative: light on black.
    """
    if paper.mean() < 0.5:
        return 1 - _printed(1 - photo, 1 - colour, 1 - paper, alpha)
    darkness = 1 - (photo @ _LUMA)[..., None]
    ground = 1 - min(_FADED, (1 - _PAPER) / max(float(darkness.mean()), 1e-6)) * darkness
    return ground * (1 + alpha * (colour / paper - 1))


def _labelled(picture: Image.Image, words: str) -> Image.Image:
    """A picture with a line of words on a strip at its lower edge, where there is room for one."""
    if picture.width < _LABEL[0] or picture.height < _LABEL[1]:
        return picture
    size = max(11.0, min(picture.height / 14, picture.width / 14))
    font, text = fit(words, size, 0.94 * picture.width, 9)
    height = round(1.7 * size)
    top = picture.height - height
    strip = Image.new("RGB", (picture.width, height), "white")
    picture.paste(Image.blend(picture.crop((0, top, picture.width, picture.height)), strip, 0.85), (0, top))
    ImageDraw.Draw(picture).text((picture.width / 2, top + height / 2), text, font=font, fill=_INK, anchor="mm")
    return picture


def _colour_map(colours: str | ColourMap | None, signed: bool, style: Style) -> ColourMap:
    if colours is None:
        return named("reds") if style == "faded" and not signed else default(signed)
    table = colours if isinstance(colours, ColourMap) else named(colours)
    if signed and not table.diverging:
        raise ValueError(f"`colours` {table.name!r} has no neutral middle for a signed map; use 'polar' or 'aurora'")
    return table


def _check(signed: bool, scale: Scale | None, style: str, alpha: float | None, smoothing: float) -> None:
    if style not in get_args(Style):
        raise ValueError(f"`style` is {style!r}; use one of {', '.join(map(repr, get_args(Style)))}")
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` is {alpha!r}; it is the weight of the colour, in [0, 1]")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"`smoothing` is {smoothing!r}; it is a share of the map's shorter side, such as 0.01")
    if scale is not None and not isinstance(scale, Scale):
        raise TypeError(
            f"`scale` is a {type(scale).__name__}; give a Scale, such as Scale.of(heatmap, signed={signed})"
        )
    if scale is not None and scale.signed != signed:
        raise ValueError(
            f"`scale` has signed={scale.signed} but the map signed={signed}; "
            f"build it by Scale.of(heatmap, signed={signed})"
        )

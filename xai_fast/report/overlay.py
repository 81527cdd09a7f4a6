"""One photo under one heatmap: blended, shown through by strength, or the map alone."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from xai_fast.report.colours import ColourMap, default, named
from xai_fast.report.scale import Scale, as_map

Style = Literal["alpha", "opacity", "heatmap"]

# Under full colour the photo loses this share of its own colour: hue means the map, structure the photo.
_DESATURATE = 0.75
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def overlay(
    photo: Image.Image | ArrayLike,
    heatmap: ArrayLike,
    *,
    signed: bool,
    scale: Scale | None = None,
    style: Style = "alpha",
    alpha: float = 0.6,
    colours: str | ColourMap | None = None,
) -> Image.Image:
    """Draw a heatmap over the photo it explains.

    Args:
        photo: what `as_photo` takes; the picture has its size.
        heatmap: (h, w) real values that cover the whole photo, at any resolution; enlarged bilinearly with
            half-pixel centres (`align_corners=False`).
        signed: whether the sign carries meaning; chooses the colours and centres the scale on zero.
        scale: limits of the colours; None: `Scale.of(heatmap)`. Share one to compare several maps.
        style: "alpha" blends all over at `alpha`; "opacity" blends by the strength of the value, up to
            `alpha`, so the photo shows unchanged where the map says nothing; "heatmap" is the map alone.
        alpha: weight of the colour in [0, 1].
        colours: a colour map or its name; None: the default for `signed`.

    Returns:
        An RGB image.

    Raises:
        ValueError: a wrong shape or range, NaN, an unknown style or colour map, a scale of the other kind.
        TypeError: something that is no picture, no map or no scale.
    """
    values = as_map(heatmap)
    _check(signed, scale, style, alpha)
    scale = Scale.of(values, signed=signed) if scale is None else scale
    table = _colour_map(colours, signed)
    picture = as_photo(photo)

    values = resize_map(values, (picture.height, picture.width))
    colour = table(scale.positions(values))
    if style == "heatmap":
        return _image(colour)
    strength = scale.strengths(values)
    # Concave, because weak values are pale already: a weight that fades with them as well would lose them.
    weight = np.ones_like(strength) if style == "alpha" else strength * (2 - strength)
    return _image(_blend(np.asarray(picture, dtype=np.float32) / 255, colour, weight[..., None], alpha))


def resize_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map (h, w) at `size` (H, W): bilinear with half-pixel centres, antialiased when it shrinks."""
    height, width = size
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def as_photo(photo: Image.Image | ArrayLike) -> Image.Image:
    """A picture as an RGB image; transparency is laid on white.

    Args:
        photo: a PIL image, or an array (H, W), (H, W, 1) or (H, W, 3), uint8 or bool, or floats in [0, 1].

    Raises:
        ValueError: another shape, an empty picture, or floats outside [0, 1].
        TypeError: another type of picture or of numbers.
    """
    if not isinstance(photo, Image.Image):
        return _photo_from_array(np.asarray(photo))
    if photo.mode.startswith("I;16"):
        # PIL's own conversion clips at 255 instead of scaling.
        return Image.fromarray((np.asarray(photo) / 257).round().astype(np.uint8)).convert("RGB")
    if photo.mode in ("I", "F"):
        raise TypeError(f"`photo` has mode {photo.mode!r}, whose range is unknown; scale it to 8 bits first")
    if photo.has_transparency_data:
        layer = photo.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return photo.convert("RGB")


def _photo_from_array(array: NDArray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"`photo` has shape {array.shape}; give a PIL image or an array (H, W) or (H, W, 3)")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"`photo` has values from {array.min():g} to {array.max():g}; floats must lie in [0, 1]: "
                "give the photo itself, not the normalised input of the model"
            )
        return _image(array.astype(np.float32)).convert("RGB")
    if array.dtype == bool:
        return Image.fromarray(array.astype(np.uint8) * 255).convert("RGB")
    if array.dtype != np.uint8:
        raise TypeError(f"`photo` holds {array.dtype}; give a PIL image, or an array of uint8 or of floats in [0, 1]")
    return Image.fromarray(array).convert("RGB")


def _blend(photo: NDArray, colour: NDArray, weight: NDArray, alpha: float) -> NDArray:
    grey = (photo @ _LUMA)[..., None]
    # Tied to the colour's own weight: where that is 0 the photo comes through to the last bit.
    opacity = alpha * weight
    ground = photo + _DESATURATE * weight * min(1.0, 2 * alpha) * (grey - photo)
    return ground + opacity * (colour - ground)


def _image(rgb: NDArray) -> Image.Image:
    return Image.fromarray((np.clip(rgb, 0, 1) * 255).round().astype(np.uint8))


def _colour_map(colours: str | ColourMap | None, signed: bool) -> ColourMap:
    table = colours if isinstance(colours, ColourMap) else default(signed) if colours is None else named(colours)
    if signed and not table.diverging:
        raise ValueError(f"`colours` {table.name!r} has no neutral middle for a signed map; use 'polar' or 'aurora'")
    return table


def _check(signed: bool, scale: Scale | None, style: str, alpha: float) -> None:
    if style not in get_args(Style):
        raise ValueError(f"`style` is {style!r}; use one of {', '.join(map(repr, get_args(Style)))}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` is {alpha!r}; it is the weight of the colour, in [0, 1]")
    if scale is not None and not isinstance(scale, Scale):
        raise TypeError(
            f"`scale` is a {type(scale).__name__}; give a Scale, such as Scale.of(heatmap, signed={signed})"
        )
    if scale is not None and scale.signed != signed:
        raise ValueError(
            f"`scale` has signed={scale.signed} but the map signed={signed}; "
            f"build it by Scale.of(heatmap, signed={signed})"
        )

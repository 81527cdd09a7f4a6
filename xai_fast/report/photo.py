"""Whatever somebody calls a picture, as an RGB image; and numbers in [0, 1] as one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image


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


def as_picture(values: NDArray) -> Image.Image:
    """Floats (H, W) or (H, W, 3), clipped to [0, 1], in 8 bits."""
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


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
        return as_picture(array.astype(np.float32)).convert("RGB")
    if array.dtype == bool:
        return Image.fromarray(array.astype(np.uint8) * 255).convert("RGB")
    if array.dtype != np.uint8:
        raise TypeError(f"`photo` holds {array.dtype}; give a PIL image, or an array of uint8 or of floats in [0, 1]")
    return Image.fromarray(array).convert("RGB")

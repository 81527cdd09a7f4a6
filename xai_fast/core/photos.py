"""Photographs from wherever they come: a path, a PIL image, an array. Hostile files end in one clear error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def open_photo(source: Any) -> Image.Image:
    """The photograph, upright (EXIF) and fully decoded, in RGB or greyscale.

    Args:
        source: a path, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4), uint8 or floats in [0, 1].

    Raises:
        ValueError: a missing, empty, damaged, oversized or foreign file; says which and why.
        TypeError: something else altogether.
    """
    if isinstance(source, Image.Image):
        return _upright(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, str | Path):
        raise TypeError(f"`images` holds a {type(source).__name__}; give paths, PIL images, arrays or a tensor")
    return _read(Path(source))


def _read(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        # Pillow only warns of a decompression bomb up to twice its limit; here that is an error too.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as photo:
                return _upright(photo)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f"{path}: more pixels than a photograph has ({Image.MAX_IMAGE_PIXELS:,} are allowed)"
        ) from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: damaged or unreadable image ({error})") from None


def _upright(photo: Image.Image) -> Image.Image:
    photo.load()
    photo = ImageOps.exif_transpose(photo)
    if photo.mode.startswith("I") or photo.mode == "F":  # 16 bits per pixel; Pillow's own conversion would clip
        return _from_array(np.clip(np.asarray(photo, dtype=np.float64) / 65535.0, 0, 1))
    return photo if photo.mode in ("L", "RGB") else photo.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"`images` holds an array {array.shape}; give (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise TypeError(f"`images` holds an array of {array.dtype}; give uint8, or floats in [0, 1]")
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("`images` holds an array of floats outside [0, 1]; scale it first")
        array = np.round(array * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array[..., :3] if array.ndim == 3 else array))

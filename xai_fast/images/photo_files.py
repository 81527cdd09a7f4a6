"""One photograph, from a file or as it is, to an upright picture in RGB or grey, within a bounded memory."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from xai_fast._printing import printable, reason

from .picture_modes import rgb_or_grey

MEMORY = 250_000_000  # bytes that decoding one file may take

# Bytes per pixel as Pillow stores them, and what its decoders hold beside the picture while they work (measured).
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_BESIDE = {"PNG": 0, "BMP": 0, "GIF": 1, "PPM": 0, "JPEG": 0, "MPO": 0, "TIFF": 4, "TGA": 1, "AVIF": 6, "WEBP": 12}
_BESIDE_OTHERS = 16
_PROGRESSIVE = 6  # a progressive JPEG is decoded from all of its coefficients at once
_ROW = 8  # bytes of the pointer to a row

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_photo(source: Any, formats: tuple[str, ...] | None = None) -> Image.Image:
    """The photograph, upright (EXIF) and fully decoded, in RGB or greyscale; of animations the first frame.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4), uint8 or floats
            in [0, 1]. Of transparency and of pictures with more than 8 bits see `picture_modes.rgb_or_grey`.
        formats: Pillow's names of the only file formats that are read; None for all.

    Raises:
        ValueError: a missing, empty, damaged or foreign file, or one that takes more than `MEMORY` to decode; or a
            picture whose range of values is not known. Says which and why.
        TypeError: something else altogether.
    """
    if isinstance(source, Image.Image):
        return _upright(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes):
        return decoded(source, formats)
    if not isinstance(source, str | Path):
        raise TypeError(f"`images` holds a {type(source).__name__}; give paths, PIL images, arrays or a tensor")
    try:
        return decoded(Path(source), formats)
    except ValueError as error:
        raise ValueError(f"{printable(str(source))}: {error}") from None


def decoded(source: Path | bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """As `open_photo`, of a file or its bytes; what is wrong with it is said without its name.

    Raises:
        ValueError: as `open_photo`.
    """
    if isinstance(source, Path):
        _refuse_no_file(source)
    elif not source:
        raise ValueError("the file is empty")
    try:
        file = source if isinstance(source, Path) else io.BytesIO(source)
        with _without_pixel_limit(), Image.open(file, formats=formats) as photo:
            _refuse_size(photo)
            return _upright(photo)
    except UnidentifiedImageError:
        allowed = "" if formats is None else f" among {', '.join(formats)}"
        raise ValueError(f"not an image that Pillow can read{allowed}") from None
    except _UnfitError as error:
        raise ValueError(str(error)) from None
    except MemoryError:
        raise ValueError("there is not enough memory to decode it") from None
    except PermissionError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except Exception as error:  # decoders run on bytes of anybody's: they fail in any way
        raise ValueError(f"damaged or unreadable image ({reason(error)})") from None


def _refuse_no_file(path: Path) -> None:
    try:
        if not path.is_file():
            there = "is a folder" if path.is_dir() else "is no ordinary file" if path.exists() else "no such file"
            raise ValueError(there)
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None


class _UnfitError(ValueError):
    """A sound file that holds no picture for us."""


@contextmanager
def _without_pixel_limit() -> Iterator[None]:
    """Pillow warns of many pixels before anybody can count bytes; here `_refuse_size` decides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            yield
        except Image.DecompressionBombError:
            raise _UnfitError("more pixels than a photograph has; make it smaller first") from None


def _refuse_size(photo: Image.Image, *, decoded: bool = False) -> None:
    """Refuses what would take more than `MEMORY` to decode, convert and turn."""
    pixels = photo.width * photo.height
    needed = pixels * _STORED.get(photo.mode, 4) + _ROW * photo.height
    if not decoded:
        beside = pixels * _BESIDE.get(photo.format or "", _BESIDE_OTHERS)
        beside += pixels * _PROGRESSIVE if photo.info.get("progressive") else 0
    else:
        beside = 0
    # A conversion makes a second picture, by way of a third for palettes; decoders are done by then.
    after = pixels * (0 if photo.mode in ("L", "RGB") else 8 if photo.has_transparency_data else 4)
    if _turn_of(photo, decoded) is not None:
        after = max(after, 4 * pixels) + _ROW * photo.width
    if (needed := needed + max(beside, after)) > MEMORY:
        raise _UnfitError(
            f"{photo.width} x {photo.height} pixels are more than a photograph has, and take {needed / 1e6:,.0f} MB "
            f"to decode where {MEMORY / 1e6:,.0f} are allowed; make it smaller first"
        )


def _turn_of(photo: Image.Image, decoded: bool = True) -> Image.Transpose | None:
    """What makes the picture upright; before it is decoded only what its header says, since asking a PNG decodes it."""
    try:
        if decoded:
            exif = photo.getexif()
        else:
            exif = Image.Exif()
            exif.load(photo.info.get("exif", b""))
        return _TURNS.get(exif.get(_ORIENTATION, 1))
    except Exception:  # what cannot be read says nothing of the picture
        return None


def _upright(photo: Image.Image) -> Image.Image:
    photo.load()
    turn = _turn_of(photo)  # asked first: what converts a picture may drop it
    if turn is not None and photo.format is not None:
        _refuse_size(photo, decoded=True)
    try:
        picture = rgb_or_grey(photo)
    except ValueError as error:
        raise _UnfitError(str(error)) from None
    return picture if turn is None else picture.transpose(turn)


def _from_array(array: np.ndarray) -> Image.Image:
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"`images` holds an array {array.shape}; give (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise TypeError(f"`images` holds an array of {array.dtype}; give uint8, or floats in [0, 1]")
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("`images` holds an array of floats outside [0, 1]; scale it first")
        levels = np.round(array * 255).astype(np.uint8)
        if levels.max() == 0 < array.max():
            raise ValueError(f"`images` holds an array whose largest value is {array.max():g}: black; scale it first")
        array = levels
    return rgb_or_grey(Image.fromarray(np.ascontiguousarray(array)))

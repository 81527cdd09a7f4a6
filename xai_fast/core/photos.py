"""Photographs from wherever they come, to what a model takes and sees. Hostile files end in one clear error."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from xai_fast.report import as_photo

from .preprocess import Preprocess


class ImageError(ValueError):
    """One image cannot be read or turned into an input; the others go on."""


def to_input(source: Any, preprocess: Callable[[Any], Tensor] | None) -> tuple[Tensor, Image.Image]:
    """The input (1, C, H, W) for an image, and the picture that the model sees.

    Args:
        source: as `open_photo` takes it, or a tensor (C, H, W) in the model's own space.
        preprocess: from a PIL image to a tensor (C, H, W).

    Raises:
        ImageError: the image cannot be read.
        ValueError: a photograph, and how it becomes an input is not known.
    """
    if isinstance(source, Tensor):
        return source[None], _seen(source, preprocess)
    if preprocess is None:
        raise ValueError(
            "`preprocess` is not known for this model, so a photograph cannot become its input; give a callable from a "
            "PIL image to a tensor (C, H, W), such as xf.Preprocess(resize=256, crop=224), or tensors as `images`"
        )
    try:
        photo = open_photo(source)
        inputs = preprocess(photo)
    except (ValueError, TypeError, OSError) as error:
        raise ImageError(str(error)) from error
    view = preprocess.view(photo) if isinstance(preprocess, Preprocess) else _seen(inputs, preprocess)
    return inputs[None], view


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


def _seen(inputs: Tensor, preprocess: Any) -> Image.Image:
    if isinstance(preprocess, Preprocess):
        pixels = preprocess.pixels(inputs)
    else:
        low, high = inputs.amin(), inputs.amax()
        pixels = (inputs - low) / (high - low).clamp_min(1e-12)
    channels = pixels if pixels.shape[0] in (1, 3) else pixels[:1]
    return as_photo(channels.detach().float().cpu().permute(1, 2, 0).numpy())


def as_list(images: Any) -> list[Any]:
    """One source per image."""
    if isinstance(images, Tensor):
        if images.ndim not in (3, 4):
            raise ValueError(f"`images` of shape {tuple(images.shape)} are no pictures; give (N, C, H, W) or (C, H, W)")
        return [images] if images.ndim == 3 else list(images)
    sources = list(images) if isinstance(images, list | tuple) else [images]
    if not sources:
        raise ValueError("`images` came empty; give at least one")
    return sources


def names_of(sources: Sequence[Any]) -> list[str]:
    """What to call each image: the file's stem, or its number."""
    return [Path(s).stem if isinstance(s, str | Path) else f"image-{n}" for n, s in enumerate(sources, start=1)]


def numbered(stems: Iterable[str]) -> list[str]:
    """File stems made unique: the second "cat" becomes "cat-2"."""
    taken: set[str] = set()
    unique = []
    for stem in stems:
        candidate, n = stem, 1
        while candidate.lower() in taken:  # file systems may ignore case
            n += 1
            candidate = f"{stem}-{n}"
        taken.add(candidate.lower())
        unique.append(candidate)
    return unique

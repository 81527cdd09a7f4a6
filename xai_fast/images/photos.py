"""Photographs from wherever they come, to what a model takes and sees. Hostile files end in one clear error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from xai_fast._printing import reason
from xai_fast.report import as_photo

from .photo_files import open_photo
from .preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image


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
        if source.ndim != 3 or not source.is_floating_point() or not source.isfinite().all():
            raise ImageError(
                f"`images` holds a tensor {tuple(source.shape)} of {source.dtype}; give finite floating "
                "(C, H, W) in the model's own space"
            )
    elif preprocess is None:
        raise ValueError(
            "`preprocess` is not known for this model, so a photograph cannot become its input; give a callable from a "
            "PIL image to a tensor (C, H, W), such as xf.Preprocess(resize=256, crop=224), or tensors as `images`"
        )
    try:
        if isinstance(source, Tensor):
            return source[None], _seen(source, preprocess)
        photo = open_photo(source)
        inputs = _input_of(photo, preprocess)
        view = preprocess.view(photo) if isinstance(preprocess, Preprocess) else _seen(inputs, preprocess)
        return inputs[None], view
    except (Exception, SystemExit) as error:  # decoders fail in any way, and so does a `preprocess` of the caller's
        raise ImageError(reason(error)) from error


def _input_of(photo: Image.Image, preprocess: Any) -> Tensor:
    inputs = preprocess(photo)
    if not isinstance(inputs, Tensor) or inputs.ndim != 3:
        came = f"a tensor {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
        raise TypeError(f"`preprocess` returned {came}; it must return a tensor (C, H, W)")
    return inputs


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

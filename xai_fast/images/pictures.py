"""From inputs in the model's space, or photos, to pictures that people look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image


def pixels(inputs: Tensor, preprocess: Any) -> Tensor:
    """Inputs (N, C, *S) as values in [0, 1]; by each one's own range where the preprocessing is not known."""
    if isinstance(preprocess, Preprocess):
        return preprocess.pixels(inputs)
    flat = inputs.flatten(1)
    low, high = (bound.view(-1, *[1] * (inputs.ndim - 1)) for bound in (flat.amin(1), flat.amax(1)))
    return (inputs - low) / (high - low).clamp_min(1e-12)


def as_bytes(inputs: Tensor, preprocess: Any) -> Tensor | None:
    """What the model sees, as bytes (N, C, H, W) on the CPU; None for what is no picture in grey or colour."""
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
        return None
    return (pixels(inputs.detach().float(), preprocess) * 255).round().to(torch.uint8).cpu()


def as_images(pictures: Tensor) -> list[Image.Image]:
    """Pictures of bytes (N, C, H, W)."""
    from xai_fast.report import as_photo

    return [as_photo(one.permute(1, 2, 0).cpu().numpy()) for one in pictures]


def views(images: Any, count: int, preprocess: Any) -> list[Image.Image]:
    """`count` pictures as the model saw them.

    Args:
        images: inputs (N, C, H, W), one photo, or a list of photos (PIL images or arrays).
        count: how many there must be.
        preprocess: cuts photos as the model's input is cut; None leaves them whole.

    Raises:
        ValueError: another number of images, or a tensor that holds none.
    """
    from xai_fast.report import as_photo

    if isinstance(images, Tensor):
        found = as_bytes(images, preprocess)
        if found is None:
            raise ValueError(f"`images` of shape {tuple(images.shape)} are no pictures; give (N, C, H, W)")
        shown = as_images(found)
    else:
        photos = [as_photo(one) for one in (images if isinstance(images, list | tuple) else [images])]
        shown = [preprocess.view(photo) for photo in photos] if isinstance(preprocess, Preprocess) else photos
    if len(shown) != count:
        raise ValueError(f"`images` holds {len(shown)} and the result is about {count}; give one per input")
    return shown


def views_or_photos(images: Any, photos: Tensor | None, count: int, preprocess: Any) -> list[Image.Image]:
    """The pictures under a result's maps: `views` of what is given, else the result's own photos (N, C, H, W), bytes.

    Raises:
        ValueError: neither is there; or as `views`.
    """
    if images is not None:
        return views(images, count, preprocess)
    if photos is None:
        raise ValueError("`images` must be given here: what was explained is no picture in grey or colour")
    return as_images(photos)


def slice_views(volumes: Any, count: int, index: int) -> list[Image.Image]:
    """Slice `index` along the first axis of `count` volumes (N, C, D, H, W), each on its own volume's range.

    Raises:
        ValueError: they are no such volumes.
    """
    if not (isinstance(volumes, Tensor) and volumes.ndim == 5 and len(volumes) == count):
        came = tuple(volumes.shape) if isinstance(volumes, Tensor) else type(volumes).__name__
        raise ValueError(f"`images` came as {came} and the result is about {count} volumes; give them, (N, C, D, H, W)")
    shown = volumes.detach().float() if volumes.shape[1] in (1, 3) else volumes[:, :1].detach().float()
    return as_images((pixels(shown, None)[:, :, index] * 255).round().to(torch.uint8))

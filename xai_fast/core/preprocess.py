"""How a photograph becomes a model's input, and back: the geometry, the normalisation and their inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side, cut the centre, scale to [0, 1], normalise: what torchvision's presets do to a photo.

    Gives the same numbers as `torchvision.transforms._presets.ImageClassification` on PIL images (tested), and unlike
    it knows the way back, which pictures need.

    Args:
        resize: length of the short side after resizing, in pixels; None leaves the size.
        crop: side of the square cut from the centre, or (h, w), in pixels; None leaves the size.
        mean: per channel, subtracted from values in [0, 1]. Its length is the number of channels (1: greyscale).
        std: per channel, what the difference is divided by.
        interpolation: "bilinear" or "bicubic", antialiased as PIL does it.
    """

    resize: int | None = 256
    crop: int | tuple[int, int] | None = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def view(self, photo: Image.Image) -> Image.Image:
        """The part of the photo that the model sees, as a picture of the input's height and width."""
        photo = photo.convert("L" if len(self.mean) == 1 else "RGB")
        if self.resize is not None:
            photo = self._resized(photo, self.resize)
        if self.crop is not None:
            photo = self._cropped(photo)
        return photo

    def __call__(self, photo: Image.Image) -> Tensor:
        """The model's input for a photo: (C, H, W), float32."""
        pixels = torch.from_numpy(np.asarray(self.view(photo), dtype=np.float32) / 255.0)
        pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        mean, std = self._statistics(pixels)
        return ((pixels - mean) / std).contiguous()

    def pixels(self, inputs: Tensor) -> Tensor:
        """From the model's space (..., C, H, W) back to values in [0, 1]; what lies outside is clipped."""
        mean, std = self._statistics(inputs)
        return (inputs * std + mean).clamp(0, 1)

    def value_of(self, level: float) -> Tensor:
        """What a pixel of brightness `level` (0.0 black, 1.0 white) is in the model's space: (C,)."""
        return (torch.full((len(self.mean),), level) - torch.tensor(self.mean)) / torch.tensor(self.std)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(self.mean), 1, 1)
        return like.new_tensor(self.mean).view(shape), like.new_tensor(self.std).view(shape)

    def _resized(self, photo: Image.Image, short: int) -> Image.Image:
        from PIL import Image

        resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[self.interpolation]
        width, height = photo.size
        # torchvision truncates the long side; rounding it instead would shift the whole picture by a fraction.
        portrait = width <= height
        size = (short, int(short * height / width)) if portrait else (int(short * width / height), short)
        return photo if size == photo.size else photo.resize(size, resample)

    def _cropped(self, photo: Image.Image) -> Image.Image:
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop or photo.size[::-1]
        left = round((photo.width - width) / 2.0)
        top = round((photo.height - height) / 2.0)
        return photo.crop((left, top, left + width, top + height))

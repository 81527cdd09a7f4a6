"""How a photograph becomes a model's input, and back: the geometry, the normalisation and their inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # pictures are made where nothing needs torch, too: in the processes that decode
    from PIL import Image
    from torch import Tensor

MOST_PIXELS = 12_500_000
"""Of an input; and of a resized photo, from which on only the part that is kept is resized."""


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
        """The part of the photo that the model sees, as a picture of the input's height and width.

        Raises:
            ValueError: more pixels than inputs have, or a picture whose range of values is not known.
        """
        from .picture_modes import rgb_or_grey

        photo = rgb_or_grey(photo)
        mode = "L" if len(self.mean) == 1 else "RGB"
        if photo.mode == "RGB" and mode == "L":
            photo = photo.convert("L")
        size = self._resized(*photo.size)
        crop = self.crop
        width, height = size if crop is None else (crop, crop) if isinstance(crop, int) else (crop[1], crop[0])
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"a picture of {photo.width} x {photo.height} becomes an input of {width} x {height} pixels, and "
                f"{MOST_PIXELS:,} are allowed; cut or resize it first"
            )
        view = self._cut(photo, size, (width, height))
        return view if view.mode == mode else view.convert(mode)  # grey is resized as such: a third of the work

    def __call__(self, photo: Image.Image) -> Tensor:
        """The model's input for a photo: (C, H, W), float32."""
        return self.normalised(self.view(photo))

    def normalised(self, view: Image.Image) -> Tensor:
        """The model's input for what `view` returned: (C, H, W), float32."""
        import torch

        inputs = np.empty((len(self.mean), view.height, view.width), dtype=np.float32)
        for channel, mean, std in zip(range(len(self.mean)), self.mean, self.std, strict=True):
            # In place: a large picture must not exist as floats several times over.
            pixels = inputs[channel]
            np.divide(np.asarray(view.getchannel(channel)), np.float32(255), out=pixels, dtype=np.float32)
            pixels -= np.float32(mean)
            pixels /= np.float32(std)
        return torch.from_numpy(inputs)

    def pixels(self, inputs: Tensor) -> Tensor:
        """From the model's space (..., C, H, W) back to values in [0, 1]; what lies outside is clipped."""
        mean, std = self._statistics(inputs)
        return (inputs * std + mean).clamp(0, 1)

    def value_of(self, level: float) -> Tensor:
        """What a pixel of brightness `level` (0.0 black, 1.0 white) is in the model's space: (C,)."""
        import torch

        return (torch.full((len(self.mean),), level) - torch.tensor(self.mean)) / torch.tensor(self.std)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(self.mean), 1, 1)
        return like.new_tensor(self.mean).view(shape), like.new_tensor(self.std).view(shape)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing."""
        short = self.resize
        if short is None:
            return width, height
        # torchvision truncates the long side; rounding it instead would shift the whole picture by a fraction.
        return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)

    def _cut(self, photo: Image.Image, size: tuple[int, int], cut: tuple[int, int]) -> Image.Image:
        """The centre `cut` of the photo at `size`; what lies outside the photo is black. All are (width, height)."""
        from PIL import Image

        resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[self.interpolation]
        left, top = (round((whole - part) / 2.0) for whole, part in zip(size, cut, strict=True))
        window = (left, top, left + cut[0], top + cut[1])
        if size[0] * size[1] <= MOST_PIXELS:
            photo = photo if size == photo.size else photo.resize(size, resample)
            return photo if size == cut else photo.crop(window)
        # A strip of 1 x 60000 would be 4 billion pixels at a short side of 256: only what is kept is made of it.
        inner = (max(window[0], 0), max(window[1], 0), min(window[2], size[0]), min(window[3], size[1]))
        across, down = photo.width / size[0], photo.height / size[1]
        box = (
            inner[0] * across,
            inner[1] * down,
            min(inner[2] * across, photo.width),
            min(inner[3] * down, photo.height),
        )
        kept = photo.resize((inner[2] - inner[0], inner[3] - inner[1]), resample, box)
        canvas = Image.new(photo.mode, cut)
        canvas.paste(kept, (inner[0] - left, inner[1] - top))
        return canvas

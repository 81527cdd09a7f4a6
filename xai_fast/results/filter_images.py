"""What filters want to see: pictures that were optimised for them, and the ways to look at them and keep them."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xai_fast.images import pictures
from xai_fast.images.preprocess import Preprocess

from . import tensor_file

if TYPE_CHECKING:
    from PIL import Image

    from xai_fast.report import Style

FILE = "filter_images.safetensors"
_ACROSS = 6  # pictures in a row where no photo begins it
_MOST = 24  # pictures that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class FilterImages:
    """One picture per filter, and per image where it started from one.

    Attributes:
        images: (N, F, C, H, W) in the model's space; N is 1 where the start was noise.
        history: (n_steps + 1, N, F), what the filter's activation summed over positions was before each step and at the
            end. The first and the last entry are of the picture itself, those between of what the model was shown.
        layer: its name.
        filters: the F channels, by their numbers in the layer.
        method: the method with its settings, as it prints itself.
        evaluations: LongTensor (N,), model rows used per image; each ends at the layer.
        starts: (N, C, H, W) the images it started from, in the model's space; None where the start was noise.
        seconds: wall-clock of the call, preparation included.
        preprocess: how a photo becomes an input, for pictures; None leaves them scaled by their own range.
    """

    images: Tensor
    history: Tensor
    layer: str
    filters: tuple[int, ...]
    method: str
    evaluations: Tensor
    starts: Tensor | None = None
    seconds: float = 0.0
    preprocess: Any = None

    def __repr__(self) -> str:
        return f"<FilterImages of layer {self.layer!r}: images {tuple(self.images.shape)} by {self.method}>"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def scores(self) -> Tensor:
        """(2, N, F): the activation summed over positions, of the start and of the end."""
        return self.history[[0, -1]]

    def pictures(self) -> list[Image.Image]:
        """The N·F pictures, all filters of an image follow each other; scaled by their range without preprocessing.

        Raises:
            ValueError: the images are not in grey or colour.
        """
        return pictures.views(self.images.flatten(0, 1), len(self) * len(self.filters), self.preprocess)

    def changes(self) -> Tensor:
        """How far each position was moved from the start: (N, F, H, W), absolute, summed over channels.

        Raises:
            ValueError: the start was noise.
        """
        if self.starts is None:
            raise ValueError('the pictures started from noise, which shows nothing; use start="image" or `pictures()`')
        return (self.images - self.starts[:, None]).abs().sum(2)

    def overlay(
        self, images: Any = None, *, style: Style = "alpha", alpha: float = 0.6, colours: str | None = None
    ) -> list[Image.Image]:
        """Where each picture was changed, over the image it started from: N·F of them.

        Args:
            images: what the method took, or the photos themselves (PIL images or arrays); None: the starts.
            style: "alpha" blends at a constant opacity, "opacity" the more the larger the change, "heatmap" is the map.
            alpha: the opacity, in [0, 1].
            colours: name of a colour map.

        Raises:
            ValueError: the start was noise, or the number of images differs from N.
        """
        from xai_fast.report import overlay

        maps = self.changes().detach().float().cpu().numpy()
        views = pictures.views(self.starts if images is None else images, len(self), self.preprocess)
        return [
            overlay(view, one, signed=False, style=style, alpha=alpha, colours=colours)
            for view, row in zip(views, maps, strict=True)
            for one in row
        ]

    def figure(self, *, width: int = 240) -> Image.Image:
        """A sheet: per image a row, the photo first, then a column per filter; from noise, rows of six filters."""
        from xai_fast.report import Panel, Row, figure

        panels = []
        for i, (picture, (before, after)) in enumerate(zip(self.pictures(), self.scores.flatten(1).T, strict=True)):
            said = f"{self.layer}: {_short(before)} to {_short(after)}"
            panels.append(Panel(picture, f"filter {self.filters[i % len(self.filters)]}", said))
        if self.starts is None:
            return figure([Row(panels[i : i + _ACROSS]) for i in range(0, len(panels), _ACROSS)], width=width)
        per_row = len(self.filters)
        photos = pictures.views(self.starts, len(self), self.preprocess)
        rows = [Row([Panel(photo, "start"), *panels[n * per_row :][:per_row]]) for n, photo in enumerate(photos)]
        return figure(rows, width=width)

    def save(self, directory: str | Path, *, name: str = FILE) -> Path:
        """Writes everything into one file, and returns its path; the file is complete or absent, never half-written.

        Of the preprocessing only `xf.Preprocess` is kept.
        """
        tensors = {key: getattr(self, key) for key in ("images", "history", "evaluations", "starts")}
        facts = {key: getattr(self, key) for key in ("layer", "filters", "method", "seconds")}
        known = dataclasses.asdict(self.preprocess) if isinstance(self.preprocess, Preprocess) else None
        return tensor_file.write(Path(directory) / name, "FilterImages", tensors, {**facts, "preprocess": known})

    @classmethod
    def load(cls, path: str | Path) -> FilterImages:
        """Reads what `save` wrote: the directory, or the file itself.

        Raises:
            ValueError: the file is not one of ours.
        """
        tensors, facts = tensor_file.read(path, "FilterImages", FILE)
        filters, known = tuple(facts.pop("filters")), facts.pop("preprocess")
        if known is not None:
            known.update({key: tuple(value) for key, value in known.items() if isinstance(value, list)})
            known = Preprocess(**known)
        return cls(**tensors, **facts, filters=filters, preprocess=known)

    def numpy(self) -> np.ndarray:
        """The images as an array."""
        images = self.images.detach().cpu()
        return (images.float() if images.dtype is torch.bfloat16 else images).numpy()

    def to(self, device: torch.device | str) -> FilterImages:
        """The same with its images on `device`."""
        starts = None if self.starts is None else self.starts.to(device)
        return dataclasses.replace(self, images=self.images.to(device), starts=starts)

    def _repr_png_(self) -> bytes | None:
        """The picture that a notebook shows: the sheet of the first few."""
        if self.images.ndim != 5 or self.images.shape[2] not in (1, 3):
            return None
        rows = max(1, _MOST // len(self.filters))
        few = dataclasses.replace(
            self,
            images=self.images[:rows, :_MOST],
            history=self.history[:, :rows, :_MOST],
            filters=self.filters[:_MOST],
            starts=None if self.starts is None else self.starts[:rows],
        )
        buffer = io.BytesIO()
        few.figure().save(buffer, format="PNG")
        return buffer.getvalue()


def _short(score: Tensor) -> str:
    number = float(score)
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"

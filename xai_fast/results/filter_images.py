"""What filters want to see: pictures that were optimised for them, and the ways to look at them and keep them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor

from xai_fast.images import pictures

from .result import AbstractResult

if TYPE_CHECKING:
    from PIL import Image

    from xai_fast.report import Style

_ACROSS = 6  # pictures in a row where no photo begins it
_MOST = 24  # pictures that a notebook shows


@final
@dataclass(frozen=True, eq=False, repr=False)
class FilterImages(AbstractResult):
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
        preprocess: how a photo becomes an input, for pictures; None leaves them scaled by their own range. Only
            `xf.Preprocess` is saved.
    """

    _file: ClassVar[str] = "filter_images.safetensors"
    _main: ClassVar[str] = "images"

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
        self, images: Any = None, *, style: Style = "alpha", alpha: float | None = None, colours: str | None = None
    ) -> list[Image.Image]:
        """Where each picture was changed, over the image it started from: N·F of them.

        Args:
            images: what the method took, or the photos themselves (PIL images or arrays); None: the starts.
            style: "alpha" blends at a constant opacity, "opacity" the more the larger the change, "faded" prints on a
                pale grey copy of the picture, "heatmap" is the map alone.
            alpha: the opacity, in [0, 1]; None: 0.6, under "faded" 1.
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

    def _shown(self) -> Image.Image | None:
        """The sheet of the first few."""
        if self.images.ndim != 5 or self.images.shape[2] not in (1, 3):
            return None
        rows = max(1, _MOST // len(self.filters))
        few = replace(
            self,
            images=self.images[:rows, :_MOST],
            history=self.history[:, :rows, :_MOST],
            filters=self.filters[:_MOST],
            starts=None if self.starts is None else self.starts[:rows],
        )
        return few.figure()


def _short(score: Tensor) -> str:
    number = float(score)
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"

"""Concepts of a layer: where each is in the inputs, which classes it speaks for, and ways to look at them and keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from torch import Tensor

from xai_fast.images.pictures import views_or_photos

from .filter_maps import resized
from .result import AbstractResult

if TYPE_CHECKING:
    from PIL import Image

_MOST = 8  # rows that a picture shows in a notebook


@final
@dataclass(frozen=True, eq=False, repr=False)
class ConceptMaps(AbstractResult):
    """k concepts that a layer sees in N inputs.

    Attributes:
        values: (N, k, *s) on the layer's own grid, in [0, 1]: each concept's strength as a share of its largest in the
            batch. The strongest concept comes first.
        concepts: (k, C), what the layer returns where a concept is strongest and nothing else is there.
        gains: (k, K) by how much each class score rises when the layer returns a concept at every position, over one
            that returns nothing; (k, 0) where the model's output is no table of class scores.
        explained: the share of the layer's squares that the concepts explain.
        layer: its name.
        top_k: how many classes pictures show of each concept.
        size: *S of the inputs.
        method: the method with its settings, as it prints itself.
        evaluations: LongTensor (N,), model rows used per input; those of the concepts count for the first.
        photos: bytes (N, C, H, W), the inputs as pictures; None where they are none.
        seconds: wall-clock of the call, preparation excluded.
        preprocess: how a photo became an input; of those only `xf.Preprocess` is saved.
        classes: names of the outputs, or None.
    """

    _file: ClassVar[str] = "concept_maps.safetensors"

    values: Tensor
    concepts: Tensor
    gains: Tensor
    explained: float
    layer: str
    top_k: int
    size: tuple[int, ...]
    method: str
    evaluations: Tensor
    photos: Tensor | None = None
    seconds: float = 0.0
    preprocess: Any = None
    classes: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        count, explained = len(self.concepts), round(100 * self.explained)
        return f"<ConceptMaps: {count} concepts of layer {self.layer!r}, which explain {explained} % of it>"

    def heatmap(self) -> Tensor:
        """The strengths at the size of the inputs, (N, k, *S), bilinear."""
        return resized(self.values, self.size)

    def labels(self) -> list[list[tuple[str, float]]]:
        """For each concept the `top_k` classes whose scores it raises most, best first: (name or index, rise)."""
        best = self.gains.topk(min(self.top_k, self.gains.shape[1]), dim=1)
        named = self.classes if self.classes is not None and len(self.classes) == self.gains.shape[1] else None
        return [
            [(named[k] if named else f"class {k}", gain) for k, gain in zip(indices, gains, strict=True)]
            for indices, gains in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def overlay(self, images: Any = None, *, alpha: float = 0.8) -> list[Image.Image]:
        """The inputs, greyed, with each position in the colour of the concept that is strongest there.

        Args:
            images: what the method took, or the photos themselves (PIL images or arrays); None: the inputs as the
                method saw them.
            alpha: the opacity where a concept is strongest, in [0, 1].

        Raises:
            ValueError: the number of images differs from N, or the inputs are no pictures.
        """
        from xai_fast.report.regions import distinct, regions

        colours = distinct(len(self.concepts))
        return [
            regions(view, maps, colours, alpha=alpha)
            for view, maps in zip(
                views_or_photos(images, self.photos, len(self), self.preprocess), self._maps(), strict=True
            )
        ]

    def figure(self, images: Any = None, *, width: int = 360) -> Image.Image:
        """One picture: each input beside its concepts, and below them what each colour is and speaks for.

        Args:
            images: as for `overlay`.
            width: of a panel in pixels, at least 120.
        """
        from xai_fast.report import Panel, Row, figure
        from xai_fast.report.regions import Entry, distinct, legend, stacked

        views = views_or_photos(images, self.photos, len(self), self.preprocess)
        drawn = self.overlay(views)
        said = f"{len(self.concepts)} explain {100 * self.explained:.0f} % of layer {self.layer}"
        rows = [
            Row([Panel(view, "photo"), Panel(picture, "concepts", said)])
            for view, picture in zip(views, drawn, strict=True)
        ]
        sheet = figure(rows, width=width)
        entries = [
            Entry(colour, f"concept {number}", ", ".join(f"{name} {gain:+.2g}" for name, gain in classes))
            for number, (colour, classes) in enumerate(
                zip(distinct(len(self.concepts)), self.labels(), strict=True), start=1
            )
        ]
        return stacked([sheet, legend(entries, sheet.width, round(0.075 * width))])

    def _shown(self) -> Image.Image | None:
        """The picture of the first inputs."""
        if self.photos is None or len(self.size) != 2:
            return None
        return replace(self, values=self.values[:_MOST], photos=self.photos[:_MOST]).figure()

    def _maps(self) -> np.ndarray:
        """(N, k, h, w)."""
        if len(self.size) != 2:
            raise ValueError(f"maps of shape {tuple(self.values.shape)} are no pictures; draw `values` yourself")
        return self.values.detach().float().clamp(0, 1).cpu().numpy()

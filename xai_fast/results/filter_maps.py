"""Where filters fire: the activations of some channels of a layer, and the ways to look at them and keep them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from xai_fast.images.pictures import views_or_photos

from .result import AbstractResult

if TYPE_CHECKING:
    from PIL import Image

    from xai_fast.report import Scale, Style

_MOST = 8  # rows and filters that a picture shows unless told otherwise


def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (N, F, *s) at another extent: linear along every axis, `align_corners=False`."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return maps if tuple(maps.shape[2:]) == size else F.interpolate(maps, size, mode=mode, align_corners=False)


@final
@dataclass(frozen=True, eq=False, repr=False)
class FilterMaps(AbstractResult):
    """What F filters of a layer answered to N inputs.

    Attributes:
        values: (N, F, *s) activations on the layer's own grid, as the layer returns them: neither scaled nor clipped.
            A layer without positions has one cell.
        layer: its name.
        filters: the F channels, by their numbers in the layer.
        size: *S of the inputs.
        method: the method with its settings, as it prints itself.
        evaluations: LongTensor (N,), model rows used per input; each ends at the layer.
        photos: bytes (N, C, H, W), the inputs as pictures; None where they are none.
        seconds: wall-clock of the call, preparation excluded.
        preprocess: how a photo became an input; of those only `xf.Preprocess` is saved.
    """

    _file: ClassVar[str] = "filter_maps.safetensors"

    values: Tensor
    layer: str
    filters: tuple[int, ...]
    size: tuple[int, ...]
    method: str
    evaluations: Tensor
    photos: Tensor | None = None
    seconds: float = 0.0
    preprocess: Any = None

    def __repr__(self) -> str:
        return f"<FilterMaps of layer {self.layer!r}: values {tuple(self.values.shape)} by {self.method}>"

    @property
    def signed(self) -> bool:
        """Whether any activation is negative: pictures then put zero in the middle of their colours."""
        return bool((self.values < 0).any())

    def heatmap(self) -> Tensor:
        """The activations at the size of the inputs, (N, F, *S), bilinear."""
        return resized(self.values, self.size)

    def strongest(self, count: int) -> list[int]:
        """Positions, among `filters`, of those that fire most strongly anywhere: at most `count`, best first."""
        peaks = self.values.detach().float().amax(0).flatten(1).amax(1)
        return peaks.argsort(descending=True, stable=True)[:count].tolist()

    def overlay(
        self,
        images: Any = None,
        *,
        style: Style = "alpha",
        scale: Scale | Literal["shared"] | None = "shared",
        alpha: float | None = None,
        colours: str | None = None,
    ) -> list[Image.Image]:
        """The maps over the pictures they are about: N·F of them, all filters of an input follow each other.

        Args:
            images: what the method took, or the photos themselves (PIL images or arrays); None: the inputs as the
                method saw them.
            style: "alpha" blends at a constant opacity, "opacity" the more the larger the value, "faded" prints on a
                pale grey copy of the picture, "heatmap" is the map alone.
            scale: which values the ends of the colour map mean: "shared" fits each filter over all inputs, None fits
                each map by itself.
            alpha: the opacity, in [0, 1]; None: 0.6, under "faded" 1.
            colours: name of a colour map; by default a diverging one where values are negative, else sequential.

        Raises:
            ValueError: the number of images differs from N, or the inputs are no pictures.
        """
        from xai_fast.report import overlay

        views, maps, signed = (
            views_or_photos(images, self.photos, len(self), self.preprocess),
            self._maps(),
            self.signed,
        )
        shared = self._scales(maps) if scale == "shared" else None
        return [
            overlay(
                view,
                heatmap,
                signed=signed,
                scale=shared[k] if shared is not None else scale,  # type: ignore[arg-type]
                style=style,
                alpha=alpha,
                colours=colours,
            )
            for view, row in zip(views, maps, strict=True)
            for k, heatmap in enumerate(row)
        ]

    def figure(self, images: Any = None, *, n_filters: int = _MOST, width: int = 240) -> Image.Image:
        """A sheet: a row per input, its photo first, then a column per filter with one scale for the column.

        Args:
            images: as for `overlay`.
            n_filters: how many filters at most, those that fire most strongly first; all keep the order of `filters`
                where there are no more than that.
            width: of a panel in pixels, at least 120.
        """
        from xai_fast.report import Bar, Panel, Row, figure, overlay

        views, maps, signed = (
            views_or_photos(images, self.photos, len(self), self.preprocess),
            self._maps(),
            self.signed,
        )
        scales = self._scales(maps)
        columns = range(len(self.filters)) if len(self.filters) <= n_filters else self.strongest(n_filters)
        rows = []
        for view, row in zip(views, maps, strict=True):
            panels = [Panel(view, "photo", self.layer)]
            for k in columns:
                picture = overlay(view, row[k], signed=signed, scale=scales[k])
                said = f"largest {row[k].max():.3g}, mean {row[k].mean():.3g}"
                panels.append(Panel(picture, f"filter {self.filters[k]}", said, Bar(scales[k])))
            rows.append(Row(panels))
        return figure(rows, width=width)

    def _shown(self) -> Image.Image | None:
        """The sheet of the first inputs."""
        if self.photos is None:
            return None
        return replace(self, values=self.values[:_MOST], photos=self.photos[:_MOST]).figure()

    def _maps(self) -> np.ndarray:
        """(N, F, h, w)."""
        if len(self.size) != 2:
            raise ValueError(f"maps of shape {tuple(self.values.shape)} are no pictures; draw `values` yourself")
        return self.values.detach().float().cpu().numpy()

    def _scales(self, maps: np.ndarray) -> list[Scale]:
        """One per filter, over all inputs, so that a picture where it does not fire stays empty."""
        from xai_fast.report import Scale

        return [Scale.of(maps[:, k], signed=self.signed) for k in range(maps.shape[1])]

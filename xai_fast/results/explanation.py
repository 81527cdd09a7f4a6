"""The result of a method: the map, what was explained, what it cost, and the ways to look at it and keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from torch import Tensor

from xai_fast.core.detections import Detection
from xai_fast.images.pictures import slice_views, views

from .result import AbstractResult, name_of

if TYPE_CHECKING:
    from PIL import Image

    from xai_fast.report import Overlay, Panel, Scale, Style

_SLICES = 5  # of volumes in pictures
_SMOOTHING = 0.01  # of maps of pixels in pictures, as a share of the shorter side
_UNITS = {"score": "units of the score", "score per input unit": "score per unit of input", "none": ""}


@final
@dataclass(frozen=True, eq=False, repr=False)
class Explanation(AbstractResult):
    """What a method found, for N inputs and one target each, or K.

    Attributes:
        values: the attribution, as `attribute` returns it: (N, C, H, W) or (N, 1, H, W), with an axis K after N for
            (N, K) targets. Units and sign are the method's.
        target: class indices, LongTensor (N,) or (N, K); or the callable that was explained (its text, once loaded
            from a file).
        score: what the clean inputs score, (N,) or (N, K).
        outputs: (N, n_outputs) all class scores of the clean inputs; None where the model has none.
        method: the method with its settings, as it prints itself.
        layer: names of the layers that were looked at; empty for methods that look at the input.
        evaluations: LongTensor (N,), model rows used per input.
        standard_error: of `values`, for estimators; None otherwise.
        completeness_gap: (N,) or (N, K), sum of the map minus what it should sum to; None for methods that promise no
            sum. A small gap does not bound the error of the map.
        fit: (N,) or (N, K), weighted R² of the surrogate that a method fits: the share of the scores' weighted variance
            that it explains; None for methods that fit none.
        snapshots: maps as `values` was after that many draws, by their number, for methods that draw.
        seconds: wall-clock of the call, preparation excluded.
        signed: whether negative values have a meaning (they speak against the target).
        class_specific: whether another target gives another map.
        complete: what the map sums to, in words; "" where it sums to nothing.
        units: what one unit of the map is: "score", "score per input unit", what is made of them, or "none".
        per_pixel: whether every element of the input has a value of its own, so that neighbours may differ, and not
            one of its surroundings (a window, a segment, a cell of a layer); pictures are drawn accordingly.
        preprocess: how a photo became an input, for pictures; of those only `xf.Preprocess` is saved.
        classes: names of the outputs, for pictures; None where they have none.
        boxes: (N, 4) or (N, K, 4), whose detection was explained, x1, y1, x2, y2 as shares of the input's width and
            height; pictures show them. None for other targets.
    """

    _file: ClassVar[str] = "explanation.safetensors"

    values: Tensor
    target: Tensor | Callable[..., Tensor] | str
    score: Tensor
    method: str
    layer: tuple[str, ...]
    evaluations: Tensor
    outputs: Tensor | None = None
    standard_error: Tensor | None = None
    completeness_gap: Tensor | None = None
    fit: Tensor | None = None
    snapshots: Mapping[int, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    signed: bool = True
    class_specific: bool = True
    complete: str = ""
    units: str = "none"
    per_pixel: bool = False
    preprocess: Any = None
    classes: tuple[str, ...] | None = None
    boxes: Tensor | None = None

    @property
    def name(self) -> str:
        """The method's name alone."""
        return self.method.partition("(")[0]

    @property
    def several(self) -> bool:
        """Whether an axis K follows N."""
        return self.score.ndim == 2

    @property
    def blank(self) -> Tensor:
        """BoolTensor (N,) or (N, K): which maps are zero everywhere and so say nothing, as a ReLU may leave them."""
        return self.values.flatten(2 if self.several else 1).count_nonzero(-1) == 0

    def __repr__(self) -> str:
        target = f"LongTensor{tuple(self.target.shape)}" if isinstance(self.target, Tensor) else self.target
        blank = int(self.blank.sum())
        empty = f", {blank} of {self.blank.numel()} maps zero everywhere" if blank else ""
        return f"<Explanation by {self.method}: values {tuple(self.values.shape)}, target {target}{empty}>"

    def heatmap(self) -> Tensor:
        """One number per position, (N, *S) or (N, K, *S): channels are summed where signed, else the largest counts."""
        axis = 2 if self.several else 1
        return self.values.sum(axis) if self.signed else self.values.amax(axis)

    def target_names(self, sample: int) -> list[str]:
        """What was explained for one input, in words: one entry per target."""
        target = self.target.labels(len(self)) if isinstance(self.target, Detection) else self.target
        if not isinstance(target, Tensor):
            return [target if isinstance(target, str) else name_of(target)]
        indices = target[sample].reshape(-1).tolist()
        return [self.classes[i] if self.classes and i < len(self.classes) else f"class {i}" for i in indices]

    def overlay(
        self,
        images: Any,
        *,
        style: Style | None = None,
        scale: Scale | Literal["shared"] | None = None,
        alpha: float | None = None,
        colours: str | None = None,
        smoothing: float | None = None,
    ) -> list[Image.Image]:
        """The maps over the pictures they explain: N of them, or N·K (all targets of an input follow each other).

        A map that is zero everywhere says so in its picture; the box of a detection is drawn around its object.

        Args:
            images: what the method took (N, C, H, W), or the N photos themselves (PIL images or arrays).
            style: "faded" prints the map on a pale grey copy of the photo, red for and blue against the target, so
                that no colour of the photo is taken for the map's; "alpha" blends all over at a constant opacity;
                "opacity" blends the more the larger the value, over the photo in its own colours; "heatmap" is the
                map alone. None: "alpha" for maps that are never negative and no map of pixels, "faded" for the rest.
            scale: which values the ends of the colour map mean: None fits each map, "shared" fits all together.
            alpha: the opacity, in [0, 1]; None: 0.6, under "faded" 1.
            colours: name of a colour map; None: "polar" (blue, white, red, zero in the middle) for signed maps, else
                "ember" (dark to light), under "faded" "reds".
            smoothing: sigma of a Gaussian that makes forms of the map before it is drawn, as a share of its shorter
                side; None: 0.01 for maps of pixels, in which neighbours differ and single ones cannot be seen; 0 for
                all others. Values are never changed by it; the scale is of what is drawn.

        Raises:
            ValueError: the number of images differs from N, or the maps have no two axes.
        """
        drawn = self.drawn(
            self.views(images), style=style, scale=scale, alpha=alpha, colours=colours, smoothing=smoothing
        )
        return [one.picture for one in drawn]

    def drawn(
        self,
        views: list[Image.Image] | None,
        *,
        style: Style | None = None,
        scale: Scale | Literal["shared"] | None = None,
        alpha: float | None = None,
        colours: str | None = None,
        smoothing: float | None = None,
    ) -> list[Overlay]:
        """As `overlay`, with the scale and the colours of each picture; over `views`, or alone where there are none."""
        from xai_fast.report import Scale, boxed, draw
        from xai_fast.report.overlay import smoothed

        share = (_SMOOTHING if self.per_pixel else 0.0) if smoothing is None else smoothing
        maps = [smoothed(one, share) for one in self._maps()]
        if scale == "shared":
            scale = Scale.of(maps, signed=self.signed)
        if style is None:
            style = "faded" if self.signed or self.per_pixel else "alpha"
        if views is None:
            style = "heatmap"
            views = [_white(*maps[0].shape)] * len(self)
        per_view = len(maps) // len(views)
        settings: dict[str, Any] = {"scale": scale, "style": style, "alpha": alpha, "colours": colours}
        drawn = [draw(views[i // per_view], one, signed=self.signed, **settings) for i, one in enumerate(maps)]
        if self.boxes is None:
            return drawn
        each = zip(drawn, self.boxes.reshape(-1, 4).tolist(), strict=True)
        return [replace(one, picture=boxed(one.picture, box)) for one, box in each]

    def panels(self, views: list[Image.Image] | None, title: str = "", scale: Scale | None = None) -> list[list[Panel]]:
        """For each input the maps of its targets as panels of a figure, with their scores and colour bars.

        Args:
            views: what the model saw of each input; None draws the maps alone.
            title: above each map; "" is the method's name.
            scale: of all maps; None fits each.
        """
        from xai_fast.report import Bar, Panel

        drawn = self.drawn(views, scale=scale)
        per_input = len(drawn) // max(1, len(self))
        found = []
        for n in range(len(self)):
            scores = self.score[n].reshape(-1).tolist()
            words = [f"{name}: {score:.3g}" for name, score in zip(self.target_names(n), scores, strict=True)]
            one = drawn[n * per_input : (n + 1) * per_input]
            found.append(
                [
                    Panel(map_.picture, title or self.name, said, Bar(map_.scale, self.units_in_words(), map_.colours))
                    for map_, said in zip(one, words, strict=True)
                ]
            )
        return found

    def units_in_words(self) -> str:
        """What the numbers beside a picture's colours are: "units of the score, smoothed"; "" where there is none."""
        smoothed = "smoothed" if self.per_pixel else ""
        return ", ".join(part for part in (_UNITS.get(self.units, self.units), smoothed) if part)

    def views(self, images: Any) -> list[Image.Image]:
        """The pictures under the maps: what the model saw of each image."""
        return views(images, len(self.values), self.preprocess)

    def slice(self, index: int, axis: int = 0) -> Explanation:
        """The same about one slice of volumes, which is drawn over pictures as any map is.

        Args:
            index: of the slice.
            axis: of the volume, 0 to 2; the slice of axis 0 lies over `inputs[:, :, index]`.

        Raises:
            ValueError: the maps are none of volumes.
        """
        if self.values.ndim - self.several != 5:
            raise ValueError(f"maps of shape {tuple(self.values.shape)} are none of volumes (N, C, D, H, W)")
        if axis not in (0, 1, 2):
            raise ValueError(f"`axis` came as {axis!r}; give 0, 1 or 2")

        def cut(maps: Tensor) -> Tensor:
            return maps.select(axis - 3, index)

        error = None if self.standard_error is None else cut(self.standard_error)
        snapshots = {count: cut(maps) for count, maps in self.snapshots.items()}
        return replace(self, values=cut(self.values), standard_error=error, snapshots=snapshots)

    def figure(self, images: Any = None) -> Image.Image:
        """A side-by-side picture: a row per input, its photo (where given), the map of each target and its scale.

        Of volumes (N, C, D, H, W), a row per input and target: slices along the first axis, all maps on one scale.
        """
        from xai_fast.report import Panel, Row, figure

        if self.values.ndim - self.several == 5:
            return self._figure_of_slices(images)
        views = None if images is None else self.views(images)
        photos = [[] for _ in range(len(self))] if views is None else [[Panel(view, "photo")] for view in views]
        return figure([Row([*photo, *maps]) for photo, maps in zip(photos, self.panels(views), strict=True)])

    def _figure_of_slices(self, volumes: Any) -> Image.Image:
        from xai_fast.report import Panel, Row, Scale, figure

        depth = self.values.shape[-3]
        chosen = sorted({round((n + 0.5) * depth / _SLICES - 0.5) for n in range(_SLICES)})
        scale = Scale.of(self.heatmap().detach().float().cpu().numpy(), signed=self.signed)
        under = {z: None if volumes is None else slice_views(volumes, len(self), z) for z in chosen}
        maps = [self.slice(z).panels(views, f"{self.name}, slice {z}", scale) for z, views in under.items()]
        rows = []
        for n in range(len(self)):
            photos = [Panel(views[n], f"slice {z}") for z, views in under.items() if views is not None]
            rows += [Row(photos)] * (volumes is not None)
            rows += [Row([of_slice[n][k] for of_slice in maps]) for k in range(len(maps[0][n]))]
        return figure(rows)

    def save(self, directory: str | Path, *, name: str | None = None) -> Path:
        """Writes everything but the pictures into `directory`/explanation.safetensors, and returns that path.

        The file is complete or absent, never half-written. A callable target is kept as its name, a detection
        as its boxes and labels.
        """
        kept = self
        if isinstance(self.target, Detection):
            kept = replace(self, target=self.target.labels(len(self)))
        elif not isinstance(self.target, Tensor):
            kept = replace(self, target=self.target_names(0)[0])
        return super(Explanation, kept).save(directory, name=name)

    def _shown(self) -> Image.Image | None:
        """The maps alone, because the photos are not kept."""
        return self.figure() if self.values.ndim - self.several in (4, 5) else None

    def _maps(self) -> list[np.ndarray]:
        """The heat maps (H, W) in order: all targets of an input follow each other."""
        heatmap = self.heatmap().detach().float().cpu().numpy()
        if heatmap.ndim != 3 + self.several:
            hint = "take one `slice`" if heatmap.ndim == 4 + self.several else "draw `heatmap()` yourself"
            raise ValueError(f"maps of shape {tuple(self.values.shape)} are no pictures; {hint}")
        return list(heatmap.reshape(-1, *heatmap.shape[-2:]))


def _white(height: int, width: int) -> Image.Image:
    from PIL import Image

    return Image.new("RGB", (width, height), "white")

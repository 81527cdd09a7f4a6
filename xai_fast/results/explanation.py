"""The result of a method: the map, what was explained, what it cost, and the ways to look at it and keep it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from xai_fast.images.pictures import views

from .tensor_file import read, write

if TYPE_CHECKING:
    from PIL import Image

    from xai_fast.report import Scale, Style

FILE = "explanation.safetensors"
_SNAPSHOT = "snapshot."
_TENSORS = ("values", "score", "evaluations", "outputs", "standard_error", "completeness_gap", "fit")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
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
        preprocess: how a photo became an input, for pictures; not saved.
        classes: names of the outputs, for pictures; None where they have none.
    """

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
    preprocess: Any = None
    classes: tuple[str, ...] | None = None

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

    def __len__(self) -> int:
        return len(self.values)

    def heatmap(self) -> Tensor:
        """One number per position, (N, *S) or (N, K, *S): channels are summed where signed, else the largest counts."""
        axis = 2 if self.several else 1
        return self.values.sum(axis) if self.signed else self.values.amax(axis)

    def target_names(self, sample: int) -> list[str]:
        """What was explained for one input, in words: one entry per target."""
        if not isinstance(self.target, Tensor):
            return [self.target if isinstance(self.target, str) else _name_of(self.target)]
        indices = self.target[sample].reshape(-1).tolist()
        return [self.classes[i] if self.classes else f"class {i}" for i in indices]

    def overlay(
        self,
        images: Any,
        *,
        style: Style = "alpha",
        scale: Scale | Literal["shared"] | None = None,
        alpha: float = 0.6,
        colours: str | None = None,
    ) -> list[Image.Image]:
        """The maps over the pictures they explain: N of them, or N·K (all targets of an input follow each other).

        Args:
            images: what the method took (N, C, H, W), or the N photos themselves (PIL images or arrays).
            style: "alpha" blends at a constant opacity, "opacity" the more the larger the value, "heatmap" is the map.
            scale: which values the ends of the colour map mean: None fits each map, "shared" fits all together.
            alpha: the opacity, in [0, 1].
            colours: name of a colour map; by default a diverging one around zero for signed maps, else sequential.

        Raises:
            ValueError: the number of images differs from N, or the maps have no two axes.
        """
        from xai_fast.report import Scale, overlay

        maps = self._pictures()
        views = self.views(images)
        per_view = len(maps) // len(views)
        if scale == "shared":
            scale = Scale.of(maps, signed=self.signed)
        return [
            overlay(
                views[i // per_view],
                heatmap,
                signed=self.signed,
                scale=scale,
                style=style,
                alpha=alpha,
                colours=colours,
            )
            for i, heatmap in enumerate(maps)
        ]

    def views(self, images: Any) -> list[Image.Image]:
        """The pictures under the maps: what the model saw of each image."""
        return views(images, len(self.values), self.preprocess)

    def save(self, directory: str | Path, *, name: str = FILE) -> Path:
        """Writes everything but the pictures into `directory`/explanation.safetensors, and returns that path.

        The file is complete or absent, never half-written. A callable target is kept as its name.
        """
        tensors = {key: getattr(self, key) for key in _TENSORS if getattr(self, key) is not None}
        tensors |= {f"{_SNAPSHOT}{count}": maps for count, maps in self.snapshots.items()}
        if isinstance(self.target, Tensor):
            tensors["target"] = self.target
        facts = {
            "method": self.method,
            "layer": list(self.layer),
            "seconds": self.seconds,
            "signed": self.signed,
            "class_specific": self.class_specific,
            "complete": self.complete,
            "units": self.units,
            "classes": self.classes,
            "target": None if isinstance(self.target, Tensor) else self.target_names(0)[0],
        }
        return write(Path(directory) / name, "Explanation", tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Reads what `save` wrote: the directory, or the file itself.

        Raises:
            ValueError: the file is not one of ours.
        """
        tensors, facts = read(path, "Explanation", FILE)
        classes = tuple(facts["classes"]) if facts["classes"] else None
        target = tensors.pop("target", None)
        numbers = sorted(int(key.removeprefix(_SNAPSHOT)) for key in tensors if key.startswith(_SNAPSHOT))
        return cls(
            **{key: tensor for key, tensor in tensors.items() if not key.startswith(_SNAPSHOT)},
            snapshots={number: tensors[f"{_SNAPSHOT}{number}"] for number in numbers},
            target=facts["target"] if target is None else target,
            method=facts["method"],
            layer=tuple(facts["layer"]),
            seconds=facts["seconds"],
            signed=facts["signed"],
            class_specific=facts.get("class_specific", True),
            complete=facts.get("complete", ""),
            units=facts.get("units", "none"),
            classes=classes,
        )

    def numpy(self) -> np.ndarray:
        """The values as an array."""
        values = self.values.detach().cpu()
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()

    def to(self, device: torch.device | str) -> Explanation:
        """The same explanation with its tensors on `device`."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved, snapshots={n: maps.to(device) for n, maps in self.snapshots.items()})

    def figure(self, images: Any = None) -> Image.Image:
        """A side-by-side picture: a row per input, its photo (where given), the map of each target and its scale."""
        from xai_fast.report import Bar, Panel, Row, Scale, figure, overlay

        maps = self._pictures()
        views = self.views(images) if images is not None else None
        per_row = len(maps) // len(self.values)
        rows = []
        for n in range(len(self.values)):
            panels = [Panel(views[n], title="photo")] if views is not None else []
            for k, name in enumerate(self.target_names(n)):
                heatmap = maps[n * per_row + k]
                scale = Scale.of(heatmap, signed=self.signed)
                background = views[n] if views is not None else np.full((*heatmap.shape, 3), 255, dtype=np.uint8)
                style = "alpha" if views is not None else "heatmap"
                picture = overlay(background, heatmap, signed=self.signed, scale=scale, style=style)
                score = float(self.score[n].reshape(-1)[k])
                panels.append(Panel(picture, self.name, f"{name}: {score:.3g}", Bar(scale)))
            rows.append(Row(panels))
        return figure(rows)

    def _repr_png_(self) -> bytes | None:
        """The picture that a notebook shows; the values alone, because the photos are not kept."""
        import io

        if self.values.ndim - self.several != 4:
            return None
        buffer = io.BytesIO()
        self.figure().save(buffer, format="PNG")
        return buffer.getvalue()

    def _pictures(self) -> list[np.ndarray]:
        """The heat maps (H, W) in order: all targets of an input follow each other."""
        heatmap = self.heatmap().detach().float().cpu().numpy()
        if heatmap.ndim != 3 + self.several:
            raise ValueError(f"maps of shape {tuple(self.values.shape)} are no pictures; draw `heatmap()` yourself")
        return list(heatmap.reshape(-1, *heatmap.shape[-2:]))


def _name_of(target: Any) -> str:
    return getattr(target, "__name__", None) or repr(target)

"""Photographs in, side-by-side pictures out: `xf.explain`. The module can be called like the function it holds."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from xai_fast._callable import make_callable
from xai_fast.core.explanation import Explanation
from xai_fast.core.photos import ImageError, as_list, names_of, numbered, to_input
from xai_fast.core.scores import probabilities
from xai_fast.core.targets import Target, class_named
from xai_fast.engine import Engine
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build, method_named, refuse_other_kinds, refuse_without_truth
from xai_fast.report import Bar, Failure, Item, Map, Panel, Row, Scale, figure, overlay, save_png, write_page


@dataclass(frozen=True, eq=False)
class Explained:
    """One image and what the methods said of it.

    Attributes:
        name: the file's stem, or "image-1" and so on.
        view: the picture that the model saw.
        explanations: one per method, in the order asked for.
        failures: methods that failed on this image, with the reason.
        seconds: wall-clock of all methods together, preparation included.
    """

    name: str
    view: Image.Image
    explanations: tuple[Explanation, ...]
    failures: tuple[Failure, ...]
    seconds: float

    @property
    def evaluations(self) -> int:
        """Model rows used by all methods together."""
        return sum(int(explanation.evaluations.sum()) for explanation in self.explanations)

    @property
    def prediction(self) -> tuple[str, float | None]:
        """The predicted class and its probability; ("", None) where the model has no classes."""
        outputs = next((e.outputs for e in self.explanations if e.outputs is not None), None)
        if outputs is None:
            return "", None
        likely = probabilities(outputs[0].float())
        best = int(likely.argmax())
        classes = self.explanations[0].classes
        return (classes[best] if classes else f"class {best}"), float(likely[best])

    def panels(self) -> list[Panel]:
        """The photo and every map, titled, for a side-by-side picture."""
        name, probability = self.prediction
        said = f"{name}, p = {probability:.2f}" if probability is not None else name
        panels = [Panel(self.view, self.name, said)]
        for explanation in self.explanations:
            for picture, scale, label, score in _pictures(explanation, self.view):
                panels.append(
                    Panel(picture, explanation.name, f"{label}: {score:.3g}", Bar(scale, _units(explanation)))
                )
        return panels

    def save(self, directory: Path, stem: str) -> Item:
        """Writes the view, each map as picture and values, and the side-by-side picture; returns the page's entry."""
        save_png(self.view, directory / f"{stem}.photo.png")
        save_png(figure([Row(self.panels())]), directory / f"{stem}.png")
        maps = []
        for explanation in self.explanations:
            values = explanation.save(directory, name=f"{stem}.{explanation.name}.safetensors")
            pictures = _pictures(explanation, self.view)
            for k, (picture, scale, label, score) in enumerate(pictures):
                suffix = f".{k}" if len(pictures) > 1 else ""
                path = save_png(picture, directory / f"{stem}.{explanation.name}{suffix}.png")
                maps.append(
                    Map(
                        method=explanation.name,
                        picture=path.name,
                        target=label,
                        score=score,
                        layer=", ".join(explanation.layer),
                        seconds=explanation.seconds,
                        evaluations=int(explanation.evaluations.sum()),
                        note=_note(scale, _units(explanation)),
                        values=values.name,
                    )
                )
        prediction, probability = self.prediction
        return Item(self.name, f"{stem}.photo.png", prediction, probability, maps)


@dataclass(frozen=True, eq=False)
class Explanations:
    """What `xf.explain` returns: images in order, and what failed."""

    images: tuple[Explained, ...]
    failures: tuple[Failure, ...] = ()

    def __iter__(self) -> Iterator[Explained]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Explained:
        return self.images[position]

    def figure(self) -> Image.Image:
        """One picture: a row per image, its photo and every map side by side."""
        return figure([Row(image.panels()) for image in self.images])

    def save(self, directory: str | Path) -> Path:
        """Writes every picture and value, and an index.html that shows them; returns the page's path."""
        directory = Path(directory)
        stems = numbered(image.name for image in self.images)
        items = [image.save(directory, stem) for image, stem in zip(self.images, stems, strict=True)]
        return write_page(directory / "index.html", "Explanations", items, failures=self.failures, facts=facts())

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure().save(buffer, format="PNG")
        return buffer.getvalue()


def explain(
    images: Any,
    model: Any,
    *,
    methods: str | AbstractMethod | Sequence[str | AbstractMethod],
    target: Target | str = None,
    preprocess: Callable[[Any], Tensor] | None = None,
    classes: Sequence[str] | None = None,
) -> Explanations:
    """Explains photographs with one or several methods.

    Args:
        images: a path, a PIL image, an array (H, W, 3), a tensor (C, H, W) or (N, C, H, W) in the model's own space,
            or a list of them, of mixed sizes.
        model: a module, a callable, an `Engine`, or what `xf.load` takes.
        methods: names (with their starting settings) or methods made for this model.
        target: as for every method, for each image; also a class's name. A sequence gives one per image.
        preprocess: from a PIL image to (C, H, W); known already for models that `xf.load` made.
        classes: names of the outputs; likewise.

    Returns:
        The explanations; `.save("out/")` writes pictures, values and an index.html, `.figure()` is one picture.

    Raises:
        ValueError, TypeError: wrong usage (unknown method, class or layer, missing `preprocess`), before the model
            runs; or no image could be explained. An image that fails beside others is a warning and an entry of
            `.failures`.
    """
    engine = engine_for(model, preprocess, classes)
    chosen = chosen_methods(methods, engine)
    if target is None:
        refuse_without_truth((type(method).__name__ for method in chosen), "target")
    sources = as_list(images)
    targets = _target_per_image(target, len(sources), engine)
    done: list[Explained] = []
    failures: list[Failure] = []
    for source, name, one in zip(sources, names_of(sources), targets, strict=True):
        try:
            result = explain_one(source, name, engine, chosen, one)
        except ImageError as error:
            failures.append(Failure(name, str(error)))
            warnings.warn(f"{name} was not explained: {error}", stacklevel=2)
            continue
        failures += result.failures
        done.append(result)
    if not any(result.explanations for result in done):
        raise ValueError("none of `images` could be explained: " + "; ".join(failure.reason for failure in failures))
    return Explanations(tuple(done), tuple(failures))


def explain_one(source: Any, name: str, engine: Engine, methods: Sequence[AbstractMethod], target: Target) -> Explained:
    """Explains one image with every method; a method that fails on it is recorded, and the next one runs."""
    inputs, view = to_input(source, engine.preprocess)
    began = time.perf_counter()
    explanations, failures = [], []
    for method in methods:
        try:
            explanations.append(method(inputs, target))
        except (ArithmeticError, MemoryError, RuntimeError, ValueError, TypeError) as error:
            failures.append(Failure(name, f"{type(error).__name__}: {error}", type(method).__name__))
    return Explained(name, view, tuple(explanations), tuple(failures), time.perf_counter() - began)


def engine_for(
    model: Any, preprocess: Callable[[Any], Tensor] | None = None, classes: Sequence[str] | None = None
) -> Engine:
    """The engine of a model or of a model's name, with the preprocessing and the class names where they are given."""
    if isinstance(model, str):
        from xai_fast.models import load

        model = load(model).model
    if preprocess is None and classes is None:
        return Engine.of(model)
    engine = Engine.of(model)
    return Engine(
        engine.model,
        mode=engine.mode,
        plan=engine.plan,
        batch_size=engine.batch_size,
        memory_limit=engine.memory_limit,
        compile=engine.compile,
        deterministic=engine.deterministic,
        progress=engine.progress,
        output=engine.output,
        preprocess=preprocess or engine.preprocess,
        classes=classes or engine.classes,
    )


def chosen_methods(
    methods: str | AbstractMethod | Sequence[str | AbstractMethod], engine: Engine
) -> list[AbstractMethod]:
    """Methods in the order asked for, each once; names are built with their starting settings."""
    several = [methods] if isinstance(methods, str | AbstractMethod) else list(methods)
    if not several:
        raise ValueError("`methods` came empty; give at least one name, such as 'GradCAM'")
    built = [build(method, engine) if isinstance(method, str) else method for method in several]
    for method in built:
        refuse_other_kinds(method_named(type(method).__name__))
    return list({repr(method): method for method in built}.values())


def facts() -> dict[str, object]:
    """What the page's footer says of the run."""
    import datetime

    import xai_fast

    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"xai_fast": xai_fast.__version__, "torch": torch.__version__, "made": today}


def _target_per_image(target: Any, count: int, engine: Engine) -> list[Any]:
    if isinstance(target, str):
        target = class_named(target, engine.classes)
    if isinstance(target, list | tuple) or (isinstance(target, Tensor) and target.ndim >= 1):
        if len(target) != count:
            raise ValueError(f"`target` holds {len(target)} and `images` {count}; give one per image, or one for all")
        each = [class_named(t, engine.classes) if isinstance(t, str) else t for t in target]
        return [t[None] if isinstance(t, Tensor) else t for t in each]
    return [target] * count


def _pictures(explanation: Explanation, view: Image.Image) -> list[tuple[Image.Image, Scale, str, float]]:
    """Per target of a one-image explanation: the overlay, its scale, the target's name and its score."""
    maps = explanation.heatmap()[0].detach().float().cpu().reshape(-1, *explanation.values.shape[-2:]).numpy()
    scores = explanation.score[0].reshape(-1).tolist()
    style = "opacity" if explanation.signed else "alpha"
    drawn = []
    for heatmap, label, score in zip(maps, explanation.target_names(0), scores, strict=True):
        scale = Scale.of(heatmap, signed=explanation.signed)
        picture = overlay(view, heatmap, signed=explanation.signed, scale=scale, style=style)
        drawn.append((picture, scale, label, score))
    return drawn


def _units(explanation: Explanation) -> str:
    """What one unit of the map is, in words; "" for a map without."""
    words = {"score": "units of the score", "score per input unit": "score per unit of input", "none": ""}
    return words.get(explanation.units, explanation.units)


def _note(scale: Scale, units: str) -> str:
    low, _, high = scale.ticks()
    return ", ".join(part for part in (f"{low} to {high}", units, scale.note()) if part)


make_callable(__name__, explain)

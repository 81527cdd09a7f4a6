"""Photographs in, side-by-side pictures out: `xf.explain`. The module can be called like the function it holds."""

from __future__ import annotations

import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from xai_fast._callable import make_callable
from xai_fast._printing import printable, reason
from xai_fast._version import __version__
from xai_fast.core.targets import Target
from xai_fast.engine import Engine
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build, method_named, refuse_other_kinds, refuse_without_truth
from xai_fast.methods.registry import methods as registered
from xai_fast.ops import check_available
from xai_fast.report import Failure, Item, Row, figure, occupied_in, png, stems_for, write_page

from .images.image_targets import target_of_each
from .images.photos import ImageError, as_list, names_of, to_input
from .results.explained_image import ExplainedImage, Label, suffixes_of


@dataclass(frozen=True, eq=False)
class Explanations:
    """What `xf.explain` returns: images in order, and what failed."""

    images: tuple[ExplainedImage, ...]
    failures: tuple[Failure, ...] = ()

    def __iter__(self) -> Iterator[ExplainedImage]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> ExplainedImage:
        return self.images[position]

    def figure(self) -> Image.Image:
        """One picture: a row per image, its photo and every map side by side."""
        return figure([Row(image.panels()) for image in self.images])

    def save(self, directory: str | Path) -> Path:
        """Writes every picture and value, and an index.html that shows them; returns the page's path.

        Files of an earlier `save` into that folder are replaced, others never: a stem whose files would meet one is
        numbered. An image that cannot be drawn or written is a warning and an entry of the page.

        Raises:
            ValueError: the folder holds an index.html that is not ours.
            OSError: nothing could be written.
        """
        directory = Path(directory)
        occupied = occupied_in(directory, (image.source for image in self.images if image.source is not None))
        if occupied("index.html"):
            raise ValueError(f"`directory` {directory} holds an index.html that is none of ours; give another folder")
        labels = dict.fromkeys(label for image in self.images for label in image.labels)
        suffixes = suffixes_of(tuple(labels), max(image.n_targets for image in self.images))
        stems = stems_for((image.name for image in self.images), suffixes, occupied)
        items: list[Item] = []
        failures = list(self.failures)
        for image, stem in zip(self.images, stems, strict=True):
            try:
                items.append(image.save(directory, stem))
            except Exception as error:
                if image is self.images[-1] and not items:
                    raise
                failures.append(Failure(image.name, reason(error)))
                warnings.warn(f"{printable(image.name)} was not saved: {reason(error)}", stacklevel=2)
        return write_page(directory / "index.html", "Explanations", items, failures=failures, facts=facts())

    def _repr_png_(self) -> bytes:
        return png(self.figure())


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
    check_available()
    engine = engine_for(model, preprocess, classes)
    chosen = chosen_methods(methods, engine)
    if target is None:
        refuse_without_truth((type(method).__name__ for method in chosen), "target")
    sources = as_list(images)
    targets = target_of_each(target, len(sources), engine.classes)
    done: list[ExplainedImage] = []
    failures: list[Failure] = []
    for source, name, one in zip(sources, names_of(sources), targets, strict=True):
        try:
            result = explain_one(source, name, engine, chosen, one)
        except ImageError as error:
            failures.append(Failure(name, str(error)))
            warnings.warn(f"{printable(name)} was not explained: {error}", stacklevel=2)
            continue
        for failure in result.failures:
            failures.append(failure)
            warnings.warn(f"{printable(name)}: {failure.method} failed: {failure.reason}", stacklevel=2)
        if result.explanations:
            done.append(result)
    if not done:
        raise ValueError("none of `images` could be explained: " + "; ".join(failure.reason for failure in failures))
    return Explanations(tuple(done), tuple(failures))


def explain_one(
    source: Any, name: str, engine: Engine, methods: Sequence[AbstractMethod], target: Target
) -> ExplainedImage:
    """Explains one image with every method; a method that fails on it is recorded, and the next one runs.

    Raises:
        ImageError: the image cannot be read.
        ValueError: a photograph, and how it becomes an input is not known.
    """
    inputs, view = to_input(source, engine.preprocess)
    began = time.perf_counter()
    found, failures = [], []
    for method, label in zip(methods, labels_of(methods), strict=True):
        try:
            found.append((method(inputs, target), label))
        except (Exception, SystemExit) as error:  # a model's forward may raise anything
            failures.append(Failure(name, f"{type(error).__name__}: {reason(error)}", label.title))
    return ExplainedImage(
        name,
        view,
        tuple(explanation for explanation, _ in found),
        tuple(failures),
        time.perf_counter() - began,
        tuple(label for _, label in found),
        Path(source) if isinstance(source, str | Path) else None,
    )


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
    return engine.like(preprocess=preprocess, classes=classes)


def chosen_methods(
    methods: str | AbstractMethod | Sequence[str | AbstractMethod], engine: Engine
) -> list[AbstractMethod]:
    """Methods in the order asked for; names are built with their starting settings, each once.

    Raises:
        ValueError: none at all, an unknown name, or a method that was made for another model.
        TypeError: something else than names and methods.
    """
    several = list(methods) if isinstance(methods, Iterable) and not isinstance(methods, str) else [methods]
    if not several:
        raise ValueError("`methods` came empty; give at least one name, such as 'GradCAM'")
    chosen: dict[object, AbstractMethod] = {}
    for method in several:
        if isinstance(method, str):
            built = build(method, engine)
            chosen.setdefault(type(built), built)
            continue
        if type(method).__name__ in registered():
            refuse_other_kinds(method_named(type(method).__name__))
        if not isinstance(method, AbstractMethod):
            came = method.__name__ if isinstance(method, type) else f"a {type(method).__name__}"
            raise TypeError(f"`methods` holds {came}; give names such as 'GradCAM', or methods made for this model")
        if not _same(method.engine.model, engine.model):
            raise ValueError(
                f"`methods` holds a {type(method).__name__} that was made for another model than `model`; make it for "
                "this one, or give `model=METHOD.engine`"
            )
        chosen[id(method)] = method
    return list(chosen.values())


def labels_of(methods: Sequence[AbstractMethod]) -> list[Label]:
    """What each method is called in one run: its name; where a name comes again, numbered, with what is different."""
    names = [type(method).__name__ for method in methods]
    labels = []
    for n, (method, name) in enumerate(zip(methods, names, strict=True)):
        file, title = name, name
        if names.count(name) > 1:
            number = names[: n + 1].count(name)
            file = name if number == 1 else f"{name}-{number}"
            others = [m.settings_in_words() for m, other in zip(methods, names, strict=True) if other == name]
            own = [words for words in method.settings_in_words() if not all(words in other for other in others)]
            title = f"{name} ({', '.join(own) or number})"
        labels.append(Label(file, title))
    return labels


def _same(one: Any, other: Any) -> bool:
    """Whether two models are one object; a bound method is another object each time it is asked for."""
    return one is other or (isinstance(one, types.MethodType) and one == other)


def facts() -> dict[str, object]:
    """What the page's footer says of the run."""
    import datetime

    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"xai_fast": __version__, "torch": torch.__version__, "made": today}


make_callable(__name__, explain)

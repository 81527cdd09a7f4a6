"""`xai-fast explain`: check everything that can be checked, then image by image, so that nothing done is lost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xai_fast.core.photos import ImageError, names_of, numbered, to_input
from xai_fast.core.targets import class_named
from xai_fast.engine import Engine
from xai_fast.explain import Explained, explain_one, facts
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build, refuse_without_truth
from xai_fast.models import load
from xai_fast.report import Failure, Item, write_page

from .console import err, line, problem
from .settings import settings_for


@dataclass(frozen=True)
class Request:
    """What the user typed."""

    images: tuple[Path, ...]
    model: str
    methods: tuple[str, ...]
    target: str | None
    layer: str | None
    settings: tuple[str, ...]
    weights: str | None


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be done, checked."""

    images: tuple[Path, ...]
    model: str
    engine: Engine
    methods: tuple[AbstractMethod, ...]
    target: int | None


def prepare(request: Request, mode: Any) -> Job:
    """Turns what was typed into a job.

    Raises:
        ValueError, TypeError: wrong usage; nothing has run.
    """
    names = list(dict.fromkeys(request.methods))
    settings = settings_for(names, request.settings, request.layer)
    engine = Engine(load(request.model, weights=request.weights).model, mode=mode)
    methods = tuple(build(name, engine, chosen) for name, chosen in settings.items())
    target = None if request.target is None else class_named(request.target, engine.classes)
    if target is None:
        refuse_without_truth(names, "--target")
    job = Job(request.images, request.model, engine, methods, target)
    _check_on_first_image(job)
    return job


def _check_on_first_image(job: Job) -> None:
    """Settings that must fit the input, and a class that must exist, are tried on the first image that can be read."""
    for path in job.images:
        try:
            inputs, _ = to_input(path, job.engine.preprocess)
        except ImageError:
            continue
        for method in job.methods:
            method.cost(tuple(inputs.shape))
            method.layers(inputs)
        if job.target is not None:
            job.engine.scores(inputs, job.target)
        return


def run(job: Job, out: Path) -> int:
    """Explains every image into `out`; returns how many items failed."""
    stems = numbered(names_of(job.images))
    items: list[Item] = []
    failures: list[Failure] = []
    with _Bar(job) as bar:
        for path, stem in zip(job.images, stems, strict=True):
            bar.begin(path.name)
            try:
                result = explain_one(path, path.name, job.engine, job.methods, job.target)
            except ImageError as error:
                failures.append(Failure(path.name, str(error)))
                problem(str(error))
                continue
            failures += result.failures
            for failure in result.failures:
                problem(f"{path}: {failure.method}: {failure.reason}")
            if result.explanations:
                items.append(result.save(out, stem))
                _report(path, result)
    title = f"{job.model}: {', '.join(type(method).__name__ for method in job.methods)}"
    page = write_page(out / "index.html", title, items, failures=failures, facts={"model": job.model, **facts()})
    line(f"{len(items)} of {len(job.images)} images explained; open ", (str(page), "bold"))
    return len(failures)


def _report(path: Path, result: Explained) -> None:
    name, probability = result.prediction
    said = f"{name} (p = {probability:.2f})" if probability is not None else "no classes"
    line((str(path), "bold"), f": {said}, {result.seconds:.2f} s, {result.evaluations} model rows")


class _Bar:
    """A bar over model rows on a terminal; nothing where the output goes to a file or a pipe."""

    def __init__(self, job: Job) -> None:
        self._job = job
        columns: Sequence[Any] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("model rows"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty())
        self._task = self._progress.add_task("")

    def __enter__(self) -> _Bar:
        self._progress.start()
        self._job.engine.progress = lambda done, total: self._progress.update(self._task, completed=done, total=total)
        return self

    def begin(self, name: str) -> None:
        self._progress.update(self._task, description=name.replace("[", r"\["), completed=0, total=None)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._job.engine.progress = False

"""`xai-fast explain`: check everything that can be checked, then image by image, so that nothing done is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from xai_fast.core.targets import class_named
from xai_fast.engine import Engine
from xai_fast.explain import explain_one, facts, labels_of
from xai_fast.images.photos import ImageError, names_of, to_input
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build, refuse_without_truth
from xai_fast.models import load
from xai_fast.ops import check_available
from xai_fast.report import Failure, Item, printable, reason, stems_for, write_page
from xai_fast.results.explained import Explained, suffixes_of

from .console import err, line, problem
from .folder import Folder
from .interrupts import Interrupts
from .settings import settings_for

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


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
    check_available()
    names = list(dict.fromkeys(request.methods))
    settings = settings_for(names, request.settings, request.layer)
    engine = Engine(_loaded(request), mode=mode)
    methods = tuple(build(name, engine, chosen) for name, chosen in settings.items())
    target = None if request.target is None else class_named(request.target, engine.classes)
    if target is None:
        refuse_without_truth(names, "--target")
    job = Job(request.images, request.model, engine, methods, target)
    _check_on_first_image(job)
    return job


def _loaded(request: Request) -> Any:
    try:
        return load(request.model, weights=request.weights).model
    except Exception as error:
        if _is_refusal(error):
            raise
        raise ValueError(f"`model` {request.model} raised {type(error).__name__}: {reason(error)}") from error


def _check_on_first_image(job: Job) -> None:
    """Settings that must fit the input, and a class that must exist, are tried on the first image that they can be.

    A refusal counts once two images of one shape met it, or no further image is there: an image may be too small for
    settings that fit the others. What a model's own code raises is a matter of that image.
    """
    refused: dict[tuple[int, ...], BaseException] = {}
    for path in job.images:
        try:
            inputs, _ = to_input(path, job.engine.preprocess)
        except ImageError:
            continue
        shape = tuple(inputs.shape)
        if shape in refused:
            raise refused[shape]
        try:
            _try(job, inputs)
            return
        except (Exception, SystemExit) as error:
            if _is_refusal(error):
                refused[shape] = error
    if refused:
        raise next(iter(refused.values()))


def _try(job: Job, inputs: Tensor) -> None:
    for method in job.methods:
        method.cost(tuple(inputs.shape))
        method.layers(inputs)
    if job.target is not None:
        job.engine.scores(inputs, job.target)


def _is_refusal(error: BaseException) -> bool:
    """Whether the package itself refused, and not a model that it called."""
    if not isinstance(error, ValueError | TypeError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def run(job: Job, folder: Folder, told: Interrupts) -> int:
    """Explains every image into the folder, as long as nobody tells it to stop; returns how many items failed."""
    items: list[Item] = []
    failures: list[Failure] = []
    try:
        _run(job, folder, told, items, failures)
    except KeyboardInterrupt:
        told.told = True
    with told.held():
        if told.told and not items and not failures:
            problem("interrupted before any image was explained")
            return 0
        return len(failures) + (not _finish(job, folder, told, items, failures))


def _run(job: Job, folder: Folder, told: Interrupts, items: list[Item], failures: list[Failure]) -> None:
    stems = stems_for(names_of(job.images), suffixes_of(tuple(labels_of(job.methods)), 1), folder.occupied)
    with _Bar(job) as bar:
        for path, stem in zip(job.images, stems, strict=True):
            if told.told:  # somebody between us and the signal caught what it raised
                return
            bar.begin(path.name)
            try:
                result = explain_one(path, path.name, job.engine, job.methods, job.target)
                for failure in result.failures:
                    problem(f"{printable(str(path))}: {failure.method}: {failure.reason}")
                failures += result.failures
                if result.explanations:
                    items.append(result.save(folder.directory, stem))
                    _report(path, result)
            except Exception as error:  # reading, drawing or writing: of this image alone
                said, name = reason(error), printable(str(path))
                failures.append(Failure(path.name, said))
                problem(said if name in said else f"{name}: {said}")


def _finish(job: Job, folder: Folder, told: Interrupts, items: list[Item], failures: list[Failure]) -> bool:
    """Writes the page of what was done; returns whether it could be written."""
    title = f"{job.model}: {', '.join(type(method).__name__ for method in job.methods)}"
    said = {"model": job.model, **facts()}
    if told.told:
        said["interrupted"] = f"{len(items)} of {len(job.images)} images were explained by then"
    folder.release_reserve()
    try:
        page = write_page(folder.directory / "index.html", title, items, failures=failures, facts=said)
    except OSError as error:
        problem(f"the page could not be written: {reason(error)}")
        return False
    count = f"{len(items)} of {len(job.images)} images explained"
    line(f"{'interrupted: ' if told.told else ''}{count}; open ", (printable(str(page)), "bold"))
    return True


def _report(path: Path, result: Explained) -> None:
    name, probability = result.prediction
    said = f"{name} (p = {probability:.2f})" if probability is not None else "no classes"
    line((printable(str(path)), "bold"), f": {said}, {result.seconds:.2f} s, {result.evaluations} model rows")


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
        self._report(lambda done, total: self._progress.update(self._task, completed=done, total=total))
        return self

    def begin(self, name: str) -> None:
        self._progress.update(self._task, description=printable(name).replace("[", r"\["), completed=0, total=None)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._report(False)

    def _report(self, progress: bool | Callable[[int, int], Any]) -> None:
        engine = self._job.engine
        engine.settings = replace(engine.settings, progress=progress)

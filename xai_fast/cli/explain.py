"""`xai-fast explain`: check everything that can be checked, then image by image, so that nothing done is lost."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from xai_fast._printing import printable, reason
from xai_fast.core.targets import class_named
from xai_fast.engine import Engine
from xai_fast.explain import explain_one, facts, labels_of
from xai_fast.images.photos import ImageError, names_of, to_input
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build, refuse_without_truth
from xai_fast.models import load
from xai_fast.ops import check_available
from xai_fast.report import EMPTY, Failure, Item, stems_for, write_page
from xai_fast.results.explained_image import ExplainedImage, suffixes_of

from .console import line, problem
from .folder import Folder
from .interrupts import Interrupts
from .progress import Progress
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


def run(job: Job, folder: Folder, interrupts: Interrupts) -> int:
    """Explains every image into the folder, as long as nobody tells it to stop; returns how many items failed."""
    items: list[Item] = []
    failures: list[Failure] = []
    try:
        _run(job, folder, interrupts, items, failures)
    except KeyboardInterrupt:
        interrupts.came = True
    with interrupts.postponed():
        if interrupts.came and not items and not failures:
            problem("interrupted before any image was explained")
            return 0
        return len(failures) + (not _finish(job, folder, interrupts, items, failures))


def _run(job: Job, folder: Folder, interrupts: Interrupts, items: list[Item], failures: list[Failure]) -> None:
    stems = stems_for(names_of(job.images), suffixes_of(tuple(labels_of(job.methods)), 1), folder.occupied)
    with Progress(job.engine, len(job.images)) as progress:
        for path, stem in zip(job.images, stems, strict=True):
            if interrupts.came:  # somebody between us and the signal caught what it raised
                return
            progress.begin(path.name)
            try:
                result = explain_one(path, path.name, job.engine, job.methods, job.target)
                failures += result.failures
                with progress.paused():
                    for failure in result.failures:
                        problem(f"{printable(str(path))}: {failure.method}: {failure.reason}")
                if result.explanations:
                    items.append(result.save(folder.directory, stem))
                    with progress.paused():
                        report(str(path), result)
            except Exception as error:  # reading, drawing or writing: of this image alone
                said, name = reason(error), printable(str(path))
                failures.append(Failure(path.name, said))
                with progress.paused():
                    problem(said if name in said else f"{name}: {said}")


def _finish(job: Job, folder: Folder, interrupts: Interrupts, items: list[Item], failures: list[Failure]) -> bool:
    """Writes the page of what was done; returns whether it could be written."""
    title = f"{job.model}: {', '.join(type(method).__name__ for method in job.methods)}"
    said = {"model": job.model, **facts()}
    if interrupts.came:
        said["interrupted"] = f"{len(items)} of {len(job.images)} images were explained by then"
    folder.release_reserve()
    try:
        page = write_page(folder.directory / "index.html", title, items, failures=failures, facts=said)
    except OSError as error:
        problem(f"the page could not be written: {reason(error)}")
        return False
    count = f"{len(items)} of {len(job.images)} images explained"
    line(f"{'interrupted: ' if interrupts.came else ''}{count}; open ", (printable(str(page)), "bold"))
    return True


def report(name: str, image: ExplainedImage) -> None:
    """One line about an image that was explained, and one for each of its maps that shows nothing."""
    predicted, probability = image.prediction
    said = f"{predicted} (p = {probability:.2f})" if probability is not None else "no classes"
    line((printable(name), "bold"), f": {said}, {image.seconds:.2f} s, {image.evaluations} model rows")
    for explanation, label in zip(image.explanations, image.labels, strict=True):
        if explanation.blank.all():
            line(f"  {label.title}: the map is {EMPTY}")

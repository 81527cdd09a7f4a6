"""`xai-fast demo`: the bundled model on real photographs; `--all` scores every method where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xai_fast._printing import printable, reason
from xai_fast.engine import Engine
from xai_fast.explain import explain_one, facts
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build
from xai_fast.methods.registry import methods
from xai_fast.models import load
from xai_fast.models.demo import photograph
from xai_fast.models.demo.mosaics import Agreement, Mosaic, agreement, counts, mosaics, truth
from xai_fast.report import Failure, Row, figure, save_jpeg, stems_for, write_page
from xai_fast.results.explained_image import ExplainedImage, suffixes_of

from .console import line, problem, table
from .explain import report
from .folder import Folder
from .interrupts import Interrupts
from .progress import Progress

# Points and draws of the methods that take 50 or thousands by themselves, so that the demonstration stays short.
_FEWER: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"n_steps": 16},
    "SmoothGrad": {"n_samples": 16},
    "GradientShap": {"n_samples": 16},
    "KernelShap": {"segments": "grid", "n_samples": 160},
    "Lime": {"segments": "grid", "n_samples": 160},
    "PartitionShap": {"n_evaluations": 100},
    "RISE": {"n_masks": 160, "centred": True},
    "ShapleySampling": {"segments": "grid", "n_permutations": 2},
    "ISCAM": {"n_samples": 2},
    "SSCAM": {"n_samples": 2},
}
_ELSEWHERE = ("DRISE",)  # for detectors; of a classifier it says what RISE does

# One method of each family: class activation maps, gradients, windows, random masks, coalitions of segments.
_FAMILIES: dict[str, dict[str, Any]] = {
    "GradCAM": {},
    "IntegratedGradients": {"n_steps": 16},
    "Occlusion": {},
    "RISE": {"n_masks": 160, "centred": True},
    "KernelShap": {"segments": "slic", "n_samples": 256},
}

_OVERVIEW = "photographs.jpg"
_MOSAICS_SHOWN = 4
PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket", "motorcycle", "coins")


def run(folder: Folder, n_mosaics: int | None, interrupts: Interrupts) -> int:
    """Explains photographs with one method of each family; returns how many items failed.

    Told to stop, it writes the page of what was explained until then.

    Args:
        folder: where pictures, values and the page go.
        n_mosaics: explains with every method instead, scores each on so many mosaics whose truth is known, prints the
            table, and shows some of them; None does not.
        interrupts: whether somebody wants it to stop.
    """
    images: list[ExplainedImage] = []
    try:
        engine = Engine(load("demo").model)
        settings = _FAMILIES if n_mosaics is None else {name: _FEWER.get(name, {}) for name in _fitting()}
        chosen = [build(name, engine, chosen) for name, chosen in settings.items()]
        _explain(images, engine, chosen)
        if n_mosaics is not None:
            _score(images, engine, chosen, n_mosaics)
    except KeyboardInterrupt:
        interrupts.came = True
    with interrupts.postponed():
        return _finish(folder, images) if images else 0


def _fitting() -> list[str]:
    """Every method that explains a class of a photograph, without being told which is true."""
    return [
        name for name, info in methods().items() if info.attributes and not info.asks_truth and name not in _ELSEWHERE
    ]


def _explain(images: list[ExplainedImage], engine: Engine, chosen: Sequence[AbstractMethod]) -> None:
    line(f"{len(PHOTOGRAPHS)} photographs, {len(chosen)} methods, the bundled model")
    with Progress(engine, len(PHOTOGRAPHS)) as progress:
        for name in PHOTOGRAPHS:
            progress.begin(name)
            images.append(explain_one(photograph(name), name, engine, chosen, None))
            with progress.paused():
                report(name, images[-1])


def _score(images: list[ExplainedImage], engine: Engine, chosen: Sequence[AbstractMethod], n_mosaics: int) -> None:
    scored = _counted(engine, n_mosaics)
    truths = [truth(engine.model, mosaic, mosaic.target, "grey") for mosaic in scored]
    explained: list[ExplainedImage] = []
    with Progress(engine, len(scored)) as progress:
        for n, mosaic in enumerate(scored, start=1):
            progress.begin(f"mosaic-{n}")
            explained.append(explain_one(mosaic.inputs, f"mosaic-{n}", engine, chosen, mosaic.target))
            images += explained[n - 1 : min(n, _MOSAICS_SHOWN)]
    line()
    rows = [_row(type(method).__name__, explained, scored, truths) for method in chosen]
    table(("method", "share", "correlation", "within", "rows", "seconds"), [row for row in rows if row is not None])
    line(
        f"\n{len(scored)} mosaics of four photographs. The truth of a cell is its exact Shapley value.\n"
        "share: of the positive values, how much lies in the right cell (chance: 0.25).\n"
        "correlation: of cells' sums with the truth, over the cells of all mosaics.\n"
        "within: the same over the four cells of each mosaic, averaged.\n"
        "rows, seconds: of the model and of time, for each mosaic."
    )


def _finish(folder: Folder, images: Sequence[ExplainedImage]) -> int:
    """Writes the pictures and the page; returns how many items failed."""
    labels = tuple(dict.fromkeys(label for image in images for label in image.labels))
    stems = stems_for((image.name for image in images), suffixes_of(labels, 1), folder.occupied)
    failures = [failure for image in images for failure in image.failures]
    items = []
    for image, stem in zip(images, stems, strict=True):
        try:
            items.append(image.save(folder.directory, stem, side_by_side=False))
        except Exception as error:
            failures.append(Failure(image.name, reason(error)))
            problem(f"{image.name}: {reason(error)}")
    folder.release_reserve()
    try:
        if not folder.occupied(_OVERVIEW):
            save_jpeg(figure(_overview(images[: len(PHOTOGRAPHS)])), folder.directory / _OVERVIEW)
        facts_too = {"model": "demo", **facts()}
        page = folder.directory / "index.html"
        write_page(page, "The bundled demonstration", items, failures=failures, facts=facts_too)
    except OSError as error:
        problem(f"the page could not be written: {reason(error)}")
        return len(failures) + 1
    line("open ", (printable(str(page)), "bold"))
    return len(failures)


def _overview(images: Sequence[ExplainedImage]) -> list[Row]:
    """A row per photograph: itself, and one method of each family."""
    rows = []
    for image in images:
        photo, *maps = image.panels()
        rows.append(Row([photo, *(panel for panel in maps if panel.title in _FAMILIES)]))
    return rows


def _counted(engine: Engine, n: int) -> list[Mosaic]:
    """The first `n` mosaics in which the class is, beyond doubt, in its cell."""
    found: list[Mosaic] = []
    tried = 0
    while len(found) < n:
        tried += n
        found = [mosaic for mosaic in mosaics(tried) if counts(engine.model, mosaic)]
    return found[:n]


def _row(
    name: str, explained: Sequence[ExplainedImage], scored: Sequence[Mosaic], truths: Sequence[Tensor]
) -> tuple[str, ...] | None:
    """How well a method found the truth of the mosaics, as a row of the table; None where it failed on one."""
    found = [e for image in explained for e in image.explanations if e.name == name]
    if len(found) < len(scored):
        return None
    well: Agreement = agreement([explanation.heatmap()[0] for explanation in found], scored, truths)
    return (
        name,
        f"{well.share:.2f}",
        f"{well.correlation:.2f}",
        f"{well.correlation_within:.2f}",
        str(int(found[0].evaluations[0])),
        f"{sum(explanation.seconds for explanation in found) / len(found):.3f}",
    )

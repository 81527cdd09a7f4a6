"""`xai-fast demo`: the bundled model on real photographs, and every method scored on mosaics whose truth is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from torch import Tensor

from xai_fast.engine import Engine
from xai_fast.explain import explain_one, facts
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.build import build
from xai_fast.methods.registry import methods
from xai_fast.models import load
from xai_fast.models.demo import photograph
from xai_fast.models.demo.mosaics import Agreement, Mosaic, agreement, counts, mosaics, truth
from xai_fast.report import Failure, Row, figure, printable, reason, save_png, stems_for, write_page
from xai_fast.results.explained import Explained, suffixes_of

from .console import line, out, problem
from .folder import Folder
from .interrupts import Interrupts

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
}
_ELSEWHERE = ("DRISE",)  # for detectors; of a classifier it says what RISE does

PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket", "motorcycle", "coins")


def run(folder: Folder, n_mosaics: int, told: Interrupts) -> int:
    """Writes pictures of photographs and mosaics, prints the scores; returns how many items failed.

    Told to stop, it writes the page of what was explained until then.
    """
    images: list[Explained] = []
    try:
        _run(images, n_mosaics)
    except KeyboardInterrupt:
        told.told = True
    with told.held():
        return _finish(folder, images) if images else 0


def _run(images: list[Explained], n_mosaics: int) -> None:
    engine = Engine(load("demo").model)
    names = [
        name for name, info in methods().items() if info.attributes and not info.asks_truth and name not in _ELSEWHERE
    ]
    chosen = [build(name, engine, _FEWER.get(name)) for name in names]
    for photo in PHOTOGRAPHS:
        image = explain_one(photograph(photo), photo, engine, chosen, None)
        images.append(image)
        name, probability = image.prediction
        line((image.name, "bold"), f": {name} (p = {probability:.2f}), {image.seconds:.2f} s, {image.evaluations} rows")

    scored = _counted(engine, n_mosaics)
    truths = [truth(engine.model, mosaic, mosaic.target, "grey") for mosaic in scored]
    line()
    out.print(_table(engine, chosen, scored, truths), soft_wrap=False)
    line(
        f"\n{len(scored)} mosaics of four photographs; the truth of a cell is its exact Shapley value (16 forwards).\n"
        "share: of the positive values, how much lies in the cell of the explained class (chance: 0.25).\n"
        "correlation: of the maps' cell sums with the truth, over all cells of all mosaics, and within mosaics."
    )
    for n, mosaic in enumerate(scored[:4], start=1):
        images.append(explain_one(mosaic.inputs, f"mosaic-{n}", engine, chosen, mosaic.target))


def _finish(folder: Folder, images: Sequence[Explained]) -> int:
    """Writes the pictures and the page; returns how many items failed."""
    labels = tuple(dict.fromkeys(label for image in images for label in image.labels))
    stems = stems_for((image.name for image in images), suffixes_of(labels, 1), folder.occupied)
    failures = [failure for image in images for failure in image.failures]
    items = []
    for image, stem in zip(images, stems, strict=True):
        try:
            items.append(image.save(folder.directory, stem))
        except Exception as error:
            failures.append(Failure(image.name, reason(error)))
            problem(f"{image.name}: {reason(error)}")
    folder.release_reserve()
    try:
        together = [Row(image.panels()) for image in images[: len(PHOTOGRAPHS)]]
        if not folder.occupied("photographs.png"):
            save_png(figure(together), folder.directory / "photographs.png")
        facts_too = {"model": "demo", **facts()}
        page = folder.directory / "index.html"
        write_page(page, "The bundled demonstration", items, failures=failures, facts=facts_too)
    except OSError as error:
        problem(f"the page could not be written: {reason(error)}")
        return len(failures) + 1
    line("open ", (printable(str(page)), "bold"))
    return len(failures)


def _counted(engine: Engine, n: int) -> list[Mosaic]:
    """The first `n` mosaics in which the class is, beyond doubt, in its cell."""
    found: list[Mosaic] = []
    tried = 0
    while len(found) < n:
        tried += n
        found = [mosaic for mosaic in mosaics(tried) if counts(engine.model, mosaic)]
    return found[:n]


def _table(
    engine: Engine, chosen: Sequence[AbstractMethod], scored: Sequence[Mosaic], truths: Sequence[Tensor]
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    for column in ("share in the right cell", "correlation", "within mosaics", "model rows", "seconds each"):
        table.add_column(column, justify="right")
    for method in chosen:
        began = time.perf_counter()
        explanations = [method(mosaic.inputs[None], mosaic.target) for mosaic in scored]
        seconds = (time.perf_counter() - began) / len(scored)
        maps = [explanation.heatmap()[0] for explanation in explanations]
        found: Agreement = agreement(maps, scored, truths)
        table.add_row(
            type(method).__name__,
            f"{found.share:.2f}",
            f"{found.correlation:.2f}",
            f"{found.correlation_within:.2f}",
            str(int(explanations[0].evaluations[0])),
            f"{seconds:.3f}",
        )
    return table

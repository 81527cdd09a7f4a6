"""A run for other tools: rows as CSV, and maps over the photographs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xai_fast.report import overlay, save_png

from .decoding.pool import Decoders, Request
from .manifest import Manifest
from .plan import MANIFEST
from .reading import AuditRun
from .sources.choose import source_of

_NO_TEXT = ("embedding",)
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(run: AuditRun, path: Path) -> int:
    """Writes the rows without maps and embeddings; returns how many.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    names = [name for name in run.schema.names if name not in _NO_TEXT and not name.endswith(".heatmap")]
    rows = run.table(names).to_pylist()
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return len(rows)


def write_overlays(run: AuditRun, folder: Path, method: str | None = None, limit: int | None = None) -> int:
    """Writes a picture NUMBER.png per image that has a map, over the part of the photograph that the model saw.

    Args:
        run: whose data are where they were.
        folder: made where it is missing.
        method: whose maps; None for the first.
        limit: pictures at most.

    Returns:
        How many were written.

    Raises:
        ValueError: an unknown method; or the photographs cannot be found or cut again.
    """
    method = method or run.methods[0]
    if method not in run.methods:
        raise ValueError(f"`method` came as {method!r}; the run has {', '.join(run.methods)}")
    attribution, order = run.plan.fixed["attribution"], run.plan.about.get("order")
    if order is None or not isinstance(attribution["preprocess"], dict):
        raise ValueError("overlays need the photographs and an xf.Preprocess; this run was begun with other objects")
    signed = {one["label"]: one["signed"] for one in attribution["methods"]}[method]
    rows, source = _rows(run, method), source_of(order["data"])
    manifest = Manifest.load(run.directory / MANIFEST)
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with Decoders(attribution["preprocess"], workers=1, ahead=8, time_out=order["time_out"]) as decoders:
        for row in rows:
            if written == limit:
                break
            (item,) = manifest.rows(row["position"], row["position"] + 1)
            (found,) = decoders.stream([Request(0, 0, lambda item=item: source.fetch(item))])
            if found.pixels is not None:
                picture = overlay(Image.fromarray(found.pixels), row["map"], signed=signed)
                save_png(picture, folder / f"{row['position']:08d}.png")
                written += 1
    return written


def _rows(run: AuditRun, method: str) -> Iterator[dict[str, Any]]:
    """Position and map of every image that has one."""
    names = [f"{method}.{name}" for name in ("heatmap", "height", "width", "scale", "zero")]
    for index in run.done:
        first, _ = run.plan.span(index)
        for place, row in enumerate(run.shards.read(index, names).to_pylist()):
            content, height, width, scale, zero = (row[name] for name in names)
            if content is not None:
                levels = np.frombuffer(content, np.uint8).reshape(height, width)
                yield {"position": first + place, "map": levels * np.float32(scale) + np.float32(zero)}


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(_FORMULAS) else value

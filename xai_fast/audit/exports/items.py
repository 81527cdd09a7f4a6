"""The explained images of a run one by one: what the model saw, a method's map of it, and what the row says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_fast.audit.photographs import photographs_of
from xai_fast.audit.reading import AuditRun

_TOLD = ("uri", "label", "label_name", "target", "prediction", "probability", "label_probability")


@dataclass(frozen=True, eq=False)
class Item:
    """One explained image.

    Attributes:
        position: in the manifest.
        pixels: (h, w, 3) uint8, what the model saw of it.
        map: (height, width) float32, as it is stored.
        row: its row, without maps.
    """

    position: int
    pixels: NDArray[np.uint8]
    map: NDArray[np.float32]
    row: dict[str, Any]


def chosen_method(run: AuditRun, method: str | None) -> str:
    """The method whose maps are meant; the run's first for None.

    Raises:
        ValueError: the run has no such method.
    """
    method = method or run.methods[0]
    if method not in run.methods:
        raise ValueError(f"`method` came as {method!r}; the run has {', '.join(run.methods)}")
    return method


def is_signed(run: AuditRun, method: str) -> bool:
    """Whether the method's maps have a sign."""
    return {one["label"]: one["signed"] for one in run.plan.fixed["attribution"]["methods"]}[method]


def items(run: AuditRun, method: str, limit: int | None = None) -> Iterator[Item]:
    """The images that have a map of the method and whose photographs can be read, `limit` at most.

    Raises:
        ValueError: the photographs are not at hand, or cannot be cut again as the model saw them.
    """
    if not isinstance(run.plan.fixed["attribution"]["preprocess"], dict):
        raise ValueError("what the model saw cannot be cut again: the run's preprocessing is a callable")
    count = 0
    with photographs_of(run) as photographs:
        for rows in _rows(run, method):
            pictures = photographs.pictures([row["position"] for row in rows])
            for row in rows:
                if count == limit:
                    return
                position, values = row.pop("position"), row.pop("map")
                if position in pictures:
                    count += 1
                    yield Item(position, pictures[position], values, row)


_AT_ONCE = 32


def _rows(run: AuditRun, method: str) -> Iterator[list[dict[str, Any]]]:
    """Position, map and row of every image that has a map, a few at a time."""
    parts = [f"{method}.{name}" for name in ("heatmap", "height", "width", "scale", "zero")]
    told = [name for name in _TOLD if name in run.schema.names]
    for index in run.done:
        first, _ = run.plan.span(index)
        found = []
        for place, row in enumerate(run.shards.read(index, [*parts, *told]).to_pylist()):
            content, height, width, scale, zero = (row.pop(name) for name in parts)
            if content is not None:
                levels = np.frombuffer(content, np.uint8).reshape(height, width)
                found.append({"position": first + place, "map": levels * np.float32(scale) + np.float32(zero), **row})
        yield from (found[start : start + _AT_ONCE] for start in range(0, len(found), _AT_ONCE))

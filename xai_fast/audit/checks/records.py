"""What the checks look at: the rows of a run as arrays, read shard by shard, some hundred bytes per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xai_fast.audit.manifest import METADATA
from xai_fast.audit.reading import AuditRun
from xai_fast.audit.store.schema import CODES, LOOKS, OK, PROPERTIES

from .regions import GRID, REGIONS, masses, on_grid, shares

_NUMBERS = ("width", "height", "label", "target", "prediction", "probability", "margin", "label_probability")
_EMBEDDED = 64  # numbers that are kept of an embedding: distances survive (Johnson and Lindenstrauss 1984)
_FEW = 64  # distinct values up to which a column of texts or whole numbers is one of groups
_HALVES = 0x5EED  # of the draw that divides the images
Floats = NDArray[np.floating]
Whole = NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Records:
    """The images of a run that were explained; n of them.

    Attributes:
        position: (n,) places in the manifest, rising.
        numbers: (n,) by name: the store's properties and predictions, and numeric metadata; NaN where there is none.
        groups: (n,) texts by name, "" where there is none: metadata with few values.
        regions: (n, R) share of what speaks for the target in each of `REGIONS`; NaN where nothing does.
        grid: (n, GRID * GRID) the same on a grid.
        embedding: (n, D) float32, or None.
        classes: names by index.
        failed: images that have no row here.
        noise: by name, NaN where no noisy copy was explained: `change` and `rank` of the map (see `store.maps`), and
            `prediction` of the copy; None where the run has no noisy copies.
        masks: by name, NaN where there is no mask: `inside`, the share of what speaks for the target that lies in it;
            `strongest`, the share of the map's strongest cell that it covers; `area`, its own share of the picture.
            None where the run has no masks.
        looks: `store.schema.LOOKS` by name; None where the run was begun before they were kept.
        codes: (n, 3) int64 `store.schema.CODES`; likewise.
    """

    position: Whole
    numbers: Mapping[str, Floats]
    groups: Mapping[str, NDArray[np.object_]]
    regions: Floats
    grid: Floats
    embedding: Floats | None
    classes: tuple[str, ...]
    failed: int = 0
    noise: Mapping[str, Floats] | None = None
    masks: Mapping[str, Floats] | None = None
    looks: Mapping[str, Floats] | None = None
    codes: Whole | None = None

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def label(self) -> Whole:
        """(n,); -1 where it is unknown."""
        return _index(self.numbers["label"])

    @cached_property
    def prediction(self) -> Whole:
        """(n,); -1 where the model has none."""
        return _index(self.numbers["prediction"])

    @cached_property
    def target(self) -> Whole:
        """(n,) what the maps explain; the prediction where the run does not say; -1 where there is none."""
        target = _index(self.numbers["target"])
        return np.where(target >= 0, target, self.prediction)

    @cached_property
    def wrong(self) -> NDArray[np.bool_]:
        """(n,) whether the label is known and the prediction another."""
        return (self.label >= 0) & (self.prediction >= 0) & (self.label != self.prediction)

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """(n,) whether label and prediction are known."""
        return (self.label >= 0) & (self.prediction >= 0)

    @cached_property
    def held_out(self) -> NDArray[np.bool_]:
        """(n,) the half that checks do not look at before they say what to confirm; drawn once by place."""
        draws = np.random.default_rng(_HALVES).random(int(self.position.max()) + 1 if len(self) else 0)
        return draws[self.position] < 0.5

    def name(self, index: int) -> str:
        """Of a class."""
        return self.classes[index] if 0 <= index < len(self.classes) else f"class {index}"


def records_of(run: AuditRun, method: str | None = None) -> Records:
    """Reads a run; memory is that of its result and of one shard.

    Args:
        run: as far as it is.
        method: whose maps are looked at; None for the first.

    Raises:
        ValueError: no such method, or a damaged shard.
    """
    method = method or run.methods[0]
    if method not in run.methods:
        raise ValueError(f"`method` came as {method!r}; the run has {', '.join(run.methods)}")
    metadata = [name for name in run.schema.names if name.startswith(METADATA)]
    masked = "mask_area" in run.schema.names
    parts = [_part(run, index, method, metadata, masked) for index in run.done]
    failed = sum(run.counts.values()) - sum(len(part["position"]) for part in parts)

    def together(name: str) -> NDArray:
        # Each part is let go of, so that no more than one column is there twice.
        return np.concatenate([part.pop(name) for part in parts]) if parts else np.empty(0)

    numbers = {name: together(name) for name in (*_NUMBERS, *PROPERTIES)}
    groups: dict[str, NDArray[np.object_]] = {}
    for name in metadata:
        kind = run.schema.field(name).type
        column, short = together(name), name.removeprefix(METADATA)
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            numbers[short] = column.astype(np.float64)
        if not pa.types.is_floating(kind) and 1 < len(set(column.tolist())) <= _FEW:
            groups[short] = np.array([_text(value) for value in column.tolist()], object)
    flat = (len(numbers["label"]), -1)
    return Records(
        together("position").astype(np.int64),
        numbers,
        groups,
        together("regions").reshape(-1, len(REGIONS)),
        together("grid").reshape(-1, GRID * GRID),
        together("embedding").reshape(flat) if run.plan.fixed["attribution"]["embedding"] and parts else None,
        run.classes,
        failed,
        {name: together(f"noise.{name}") for name in _noisy(method)} if run.plan.noisy else None,
        {name: together(f"masks.{name}") for name in _MASKS} if masked else None,
        {name: together(name) for name in LOOKS} if run.plan.looks and parts else None,
        together("codes").reshape(-1, len(CODES)) if run.plan.looks and parts else None,
    )


_MASKS = ("inside", "strongest", "area")


def _noisy(method: str) -> dict[str, str]:
    """What is known of noisy copies, and in which column."""
    return {"change": f"{method}.change", "rank": f"{method}.rank", "prediction": "noisy_prediction"}


def _part(run: AuditRun, index: int, method: str, metadata: list[str], masked: bool) -> dict[str, NDArray]:
    """The arrays of a shard's images that are ok."""
    map_names = [f"{method}.{name}" for name in ("heatmap", "height", "width", "scale", "zero")]
    size = run.plan.fixed["attribution"]["embedding"]
    noisy = _noisy(method) if run.plan.noisy else {}
    names = ["status", *_NUMBERS, *PROPERTIES, *map_names, *metadata, *(["embedding"] if size else [])]
    names += [*noisy.values(), *(["mask_area", f"{method}.mask"] if masked else [])]
    looks, codes = (LOOKS, CODES) if run.plan.looks else ((), ())
    names += [*looks, *codes]
    table = run.shards.read(index, names)
    fine = pc.equal(table.column("status"), OK)  # pyright: ignore[reportAttributeAccessIssue] - made when imported
    start, _ = run.plan.span(index)
    found: dict[str, NDArray] = {"position": start + np.flatnonzero(fine.to_numpy())}
    table = table.filter(fine)
    for name in (*_NUMBERS, *PROPERTIES, *looks):
        found[name] = table.column(name).to_numpy().astype(np.float64)
    if codes:
        found["codes"] = np.stack([table.column(name).to_numpy() for name in codes], 1)
    for name in metadata:
        kind = table.schema.field(name).type
        floating = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        found[name] = table.column(name).to_numpy() if floating else np.array(table.column(name).to_pylist(), object)
    for name, column in noisy.items():
        found[f"noise.{name}"] = table.column(column).to_numpy().astype(np.float64)
    covers = table.column(f"{method}.mask").to_pylist() if masked else None
    found["regions"], found["grid"], inside = _spread(table, map_names, covers)
    if masked:
        found["masks.inside"], found["masks.strongest"] = inside.T
        found["masks.area"] = table.column("mask_area").to_numpy().astype(np.float64)
    if size:
        found["embedding"] = _embedded(table.column("embedding"), size)
    return found


def _spread(table: pa.Table, names: list[str], covers: list[bytes | None] | None) -> tuple[Floats, Floats, Floats]:
    """Where attribution lies, of maps of any shapes: in regions, on a grid, and in masks."""
    contents = table.column(names[0]).to_pylist()
    height, width, scale, zero = (table.column(name).to_numpy() for name in names[1:])
    regions = np.full((len(contents), len(REGIONS)), np.nan, np.float32)
    grid = np.full((len(contents), GRID * GRID), np.nan, np.float32)
    inside = np.full((len(contents), 2), np.nan)
    alike: dict[tuple[int, int], list[int]] = {}
    for row, content in enumerate(contents):
        if content is not None:
            alike.setdefault((int(height[row]), int(width[row])), []).append(row)
    for shape, rows in alike.items():
        levels = np.frombuffer(b"".join(contents[row] for row in rows), np.uint8).reshape(-1, *shape)
        spread = shares(levels * scale[rows, None, None] + zero[rows, None, None])
        regions[rows], grid[rows] = masses(spread, list(REGIONS.values())), on_grid(spread)
        for one, row in zip(spread, rows, strict=True):
            if covers is not None and (cover := covers[row]) is not None:
                inside[row] = in_mask(one, np.frombuffer(cover, np.uint8).reshape(shape) / 255)
    return regions, grid, inside


def in_mask(spread: NDArray[np.float64], cover: NDArray[np.float64]) -> tuple[float, float]:
    """How much of a map lies in a mask, and how much of its strongest cell, whose equals share; NaN of no map.

    Args:
        spread: (h, w) shares of what speaks for the target.
        cover: (h, w) how much of each cell the mask covers, in [0, 1].
    """
    if not np.isfinite(spread).all():
        return np.nan, np.nan
    return float((spread * cover).sum()), float(cover[spread == spread.max()].mean())


def _embedded(column: pa.ChunkedArray, size: int) -> Floats:
    """(n, D) of unit length, at most `_EMBEDDED` numbers: wider ones are projected at random, always alike."""
    found = np.full((len(column), size), np.nan, np.float32)
    flat = pc.list_flatten(column)  # pyright: ignore[reportAttributeAccessIssue] - made when imported
    found[column.is_valid().to_numpy()] = flat.to_numpy().reshape(-1, size)
    return unit(found)


def unit(rows: Floats) -> Floats:
    """Embeddings (n, size) as the records keep them: (n, D) of unit length; wider ones are projected, always alike."""
    if rows.shape[1] > _EMBEDDED:
        projected = np.random.default_rng(0).standard_normal((rows.shape[1], _EMBEDDED)).astype(np.float32)
        rows = rows @ projected
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def _index(column: Floats) -> Whole:
    return np.where(np.isfinite(column), column, -1).astype(np.int64)


def _text(value: object) -> str:
    return "" if value is None else str(value)

"""Tables of images: paths with labels and metadata (CSV, Parquet), or the images themselves, as Hugging Face's."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from xai_fast._printing import printable
from xai_fast.audit.manifest import Manifest, manifest_of

from .payload import Payload
from .place import Place, by_name

_PATHS, _IMAGES = ("path", "file_name", "image_path"), ("image", "img")
_KNOWN = ("id", "label", "mask")
_GROUPS_KEPT = 3  # row groups of tables that hold images


class PathTable:
    """A CSV or Parquet table with a column `path`, relative to the table.

    Where they are there, `label`, `mask` (a path of the region that should count) and `id` (keys random draws) are
    taken; further columns are kept as metadata.

    Args:
        path: of the table, or its URL.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._place = Place(path.rpartition("/")[0] if "/" in path else os.curdir)

    def manifest(self) -> Manifest:
        """See `Source`; in the order of the table."""
        shown = printable(self._path)
        try:
            with Place("").open(self._path) as file:
                table = pq.read_table(file) if self._path.endswith(".parquet") else pc.read_csv(file)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"`data` {shown} cannot be read as a table: {error}") from None
        names = table.column_names
        path = next((name for name in _PATHS if name in names), None)
        if path is None:
            raise ValueError(f"`data` {shown} has no column `path`, but {', '.join(names)}; name the images' paths so")
        found = {"uri": _texts(table, path), "label": _texts(table, "label")}
        found["mask"] = [name or None for name in _texts(table, "mask")]  # an empty cell of a CSV
        found["id"] = table.column("id").to_pylist() if "id" in names else [None] * len(table)
        if not all(isinstance(number, int | None) for number in found["id"]) or None in found["uri"]:
            raise ValueError(f"`data` {shown}: ids must be whole numbers, and no path may be missing")
        rows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        simple = [name for name in names if name not in (path, *_KNOWN) and _is_simple(table.schema.field(name).type)]
        return manifest_of(rows, metadata=table.select(simple))

    def fetch(self, row: dict[str, Any]) -> Payload:
        """See `Source`."""
        return self._place.payload(row["uri"])


class ImageTable:
    """Parquet tables that hold images: a column `image` of bytes, or of {bytes, path}; `label` as number or name.

    Args:
        paths: of the tables, or their URLs.
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = by_name(paths)
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, int], list[Any]] = OrderedDict()
        self._starts: dict[str, list[int]] = {}

    @staticmethod
    def holds(path: str) -> bool:
        """Whether a Parquet table holds images."""
        with Place("").open(path) as file:
            return _image_column(pq.read_schema(file)) is not None

    def manifest(self) -> Manifest:
        """See `Source`; in the order of the tables' names, then of their rows."""
        rows, parts = [], []
        for name, path in self._paths.items():
            with Place("").open(path) as file:
                schema = pq.read_schema(file)
                simple = [field.name for field in schema if field.name not in _KNOWN and _is_simple(field.type)]
                table = pq.read_table(file, columns=[*simple, *(["label"] if "label" in schema.names else [])])
                count = pq.ParquetFile(file).metadata.num_rows
            labels = _texts(table, "label", _class_names(schema)) if count else []
            rows += [
                {"uri": f"{name}/{n}", "file": name, "offset": n, "label": label}
                for n, label in enumerate(labels or [None] * count)
            ]
            parts.append(table.select(simple))
        return manifest_of(rows, metadata=pa.concat_tables(parts))

    def fetch(self, row: dict[str, Any]) -> Payload:
        """See `Source`."""
        with self._lock:
            content = self._row(row["file"], row["offset"])
        content = content.get("bytes") if isinstance(content, dict) else content
        if content is None:
            raise ValueError("the table holds no bytes for this row")
        return content

    def _row(self, name: str, number: int) -> Any:
        starts = self._starts.get(name) or self._starts.setdefault(name, self._group_starts(name))
        group = max(n for n, start in enumerate(starts) if start <= number)
        if (name, group) not in self._groups:
            with Place("").open(self._paths[name]) as file:
                table = pq.ParquetFile(file)
                column = _image_column(table.schema_arrow)
                self._groups[name, group] = table.read_row_group(group, [column]).column(0).to_pylist()
            while len(self._groups) > _GROUPS_KEPT:
                self._groups.popitem(last=False)
        return self._groups[name, group][number - starts[group]]

    def _group_starts(self, name: str) -> list[int]:
        with Place("").open(self._paths[name]) as file:
            found = pq.ParquetFile(file).metadata
        starts = [0]
        for group in range(found.num_row_groups - 1):
            starts.append(starts[-1] + found.row_group(group).num_rows)
        return starts


def _image_column(schema: pa.Schema) -> str | None:
    for name in _IMAGES:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
            if pa.types.is_struct(kind) and "bytes" in [kind.field(n).name for n in range(kind.num_fields)]:
                return name
    return None


def _class_names(schema: pa.Schema) -> list[str] | None:
    """The names of labels that are numbers, where Hugging Face's metadata has them."""
    try:
        facts = json.loads((schema.metadata or {})[b"huggingface"])
        return list(facts["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _texts(table: pa.Table, name: str, names: list[str] | None = None) -> list[str | None]:
    if name not in table.column_names:
        return [None] * len(table)
    values = table.column(name).to_pylist()
    if names is not None:
        return [None if v is None or not 0 <= v < len(names) else names[v] for v in values]
    return [None if v is None else str(v) for v in values]


def _is_simple(kind: pa.DataType) -> bool:
    return kind in (pa.int64(), pa.int32(), pa.float64(), pa.float32(), pa.bool_(), pa.string())

"""The list of what is audited, frozen with the run: one row per image, whose place in it is its number."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

METADATA = "meta."
"""What the names of further columns start with."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # keys random draws
        pa.field("uri", pa.string(), nullable=False),  # relative to the data, for people
        pa.field("raw", pa.binary()),  # the same as bytes, where the name is no Unicode
        pa.field("file", pa.string()),  # which file holds it, where that holds several
        pa.field("offset", pa.int64()),  # the byte in it, or the row
        pa.field("length", pa.int64()),  # bytes
        pa.field("label", pa.string()),
        pa.field("mask", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class Manifest:
    """Images and what is known of them.

    Attributes:
        table: `SCHEMA`, then metadata columns.
        notes: what was left out, in words.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def sha256(self) -> str:
        """Of everything in it."""
        digest = hashlib.sha256()
        for name in self.table.column_names:
            values = self.table.column(name).to_pylist()
            digest.update(json.dumps([name, values], default=_as_text).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def has_masks(self) -> bool:
        """Whether any image has one."""
        return self.table.column("mask").null_count < len(self)

    @property
    def metadata(self) -> dict[str, pa.DataType]:
        """Further columns and their types."""
        return {field.name: field.type for field in self.table.schema if field.name.startswith(METADATA)}

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Some of the rows."""
        return self.table.slice(start, stop - start).to_pylist()

    def to_bytes(self) -> bytes:
        """As a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(self.table, buffer, compression="zstd")
        return buffer.getvalue()

    @staticmethod
    def load(path: Path) -> Manifest:
        """From such a file.

        Raises:
            ValueError: it is missing or damaged.
        """
        try:
            return Manifest(pq.read_table(path, use_threads=False))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path.name} of the run cannot be read: {error}") from None


def manifest_of(rows: list[dict[str, Any]], notes: tuple[str, ...] = (), metadata: pa.Table | None = None) -> Manifest:
    """From rows with keys of `SCHEMA` (those that are missing are null; `id` is the position), and further columns.

    Raises:
        ValueError: there are none, or ids repeat.
    """
    if not rows:
        raise ValueError("`data` holds no images" + "".join(f"; {note}" for note in notes))
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    if columns["id"][0] is None:
        columns["id"] = list(range(len(rows)))
    if len(set(columns["id"])) != len(rows):
        raise ValueError("`data` gives one id to several images; ids key random draws and must differ")
    table = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}, SCHEMA)
    further = () if metadata is None else zip(metadata.column_names, metadata.columns, strict=True)
    for name, column in further:
        kind = column.type
        values = [None if isinstance(v, float) and math.isnan(v) else v for v in column.to_pylist()]
        table = table.append_column(METADATA + name, pa.array(values, kind))
    return Manifest(table.combine_chunks(), notes)


def name_of(raw: bytes) -> dict[str, Any]:
    """`uri`, and `raw` where the name is no Unicode."""
    try:
        return {"uri": raw.decode()}
    except UnicodeDecodeError:
        return {"uri": raw.decode("utf-8", "backslashreplace"), "raw": raw}


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)

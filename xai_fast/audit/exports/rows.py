"""The rows of a run as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from xai_fast.audit.reading import AuditRun

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


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(_FORMULAS) else value

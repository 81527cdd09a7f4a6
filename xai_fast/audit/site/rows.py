"""The images of a run as the page's table holds them: columns in chunks of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from xai_fast._printing import printable
from xai_fast.audit.checks.storing import Findings
from xai_fast.audit.reading import AuditRun

_COLUMNS = ("uri", "status", "error", "label", "label_name", "prediction", "probability", "label_probability")


def chunks(run: AuditRun, findings: Findings) -> Iterator[str]:
    """A text per shard: a JSON object of columns, escaped for a script element; memory is that of a shard.

    Columns: `at` the place of the first, `uri`, `status` (null: ok), `error`, `label` (a name), `index` (of the label),
    `prediction` (an index), `sure` and `own` (probabilities of the prediction and of the label, in thousandths),
    `found` (numbers of findings, or 0).
    """
    named: dict[int, list[int]] = {}
    for number, finding in enumerate(findings):
        for position in finding.positions:
            named.setdefault(position, []).append(number)
    for index in run.done:
        start, _ = run.plan.span(index)
        rows = run.shards.read(index, list(_COLUMNS)).to_pylist()
        yield escaped(_columns(rows, start, named))


def escaped(content: Any) -> str:
    """JSON inside a script element: whatever could end it, or act outside a string, is written as an escape."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _columns(rows: list[dict[str, Any]], start: int, named: Mapping[int, list[int]]) -> dict[str, Any]:
    return {
        "at": start,
        "uri": [printable(row["uri"]) for row in rows],
        "status": [None if row["status"] == "ok" else row["status"] for row in rows],
        "error": [row["error"] and printable(row["error"]) for row in rows],
        "label": [row["label_name"] and printable(row["label_name"]) for row in rows],
        "index": [row["label"] for row in rows],
        "prediction": [row["prediction"] for row in rows],
        "sure": [_thousandths(row["probability"]) for row in rows],
        "own": [_thousandths(row["label_probability"]) for row in rows],
        "found": [named.get(start + place, 0) for place in range(len(rows))],
    }


def _thousandths(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else round(1000 * value)

"""What a result file must hold to be committed; `python benchmarks/schema.py FILE...` checks files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_CONDITIONS = {"processor": str, "threads": int, "python": str, "versions": dict, "pairs": int, "allocator": str}
_NUMBER = (int, float)
_RECORD = {
    "case": str,
    "library": str,
    "bar": (int, float, type(None)),
    "warm_ratio_best": _NUMBER,
    "warm_ratio_default": _NUMBER,
    "warm_ratio_channels_last": _NUMBER,
    "first_ratio_best": _NUMBER,
    "first_ratio_default": _NUMBER,
    "growth_bytes": dict,
    "error": dict,
    "seconds": dict,
    "best_setting": int,
    "preparation_seconds": _NUMBER,
}


def check(results: dict[str, Any]) -> None:
    """Raises ValueError where conditions or figures are missing: no number without its conditions.

    Args:
        results: {"conditions": ..., "records": [...]}, as `methods.py --json` writes it.
    """
    _fields(results.get("conditions"), _CONDITIONS, "conditions")
    records = results.get("records")
    if not isinstance(records, list) or not records:
        raise ValueError("`records` is missing or empty")
    for record in records:
        _fields(record, _RECORD, f"record {record.get('case')!r}")
        for side in ("ours", "best", "default"):
            _fields(record["seconds"].get(side), {"median": _NUMBER, "iqr": _NUMBER}, f"{record['case']} {side}")
        for side in ("ours", "peer"):
            _fields(record["error"].get(side), {"max": _NUMBER, "rms": _NUMBER}, f"{record['case']} error {side}")


def _fields(found: Any, wanted: dict[str, Any], where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is missing")
    for name, kind in wanted.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(f"{where}: `{name}` is {found.get(name)!r}")


if __name__ == "__main__":
    for file in sys.argv[1:]:
        check(json.loads(Path(file).read_text()))
        print(f"{file}: ok")

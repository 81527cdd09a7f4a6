"""What a result file must hold to be committed; `python benchmarks/schema.py FILE...` checks files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONDITIONS = {"processor": str, "threads": int, "python": str, "versions": dict, "pairs": int, "allocator": str}
_NUMBER = (int, float)
_SPREAD = {"median": _NUMBER, "iqr": _NUMBER}
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
# What records have had since 0.2; older ones stay valid without.
_LATER = {
    "bar_default": (int, float, type(None)),
    "bar_growth": (int, float, type(None)),
    "plan": str,
    "part": (dict, type(None)),
    "notes": list,
    "rounds": int,
    "whole": dict,
}
_FORWARD = {
    "network": str,
    "rows": int,
    "bar": _NUMBER,
    "bar_compiled": (int, float, type(None)),
    "ratios": dict,
    "seconds": dict,
    "errors": dict,
    "modes": dict,
    "first_seconds": dict,
    "preparation_seconds": _NUMBER,
}
_PLAN = {
    "case": str,
    "window": int,
    "stride": int,
    "windows": int,
    "part": int,
    "bars": dict,
    "ratios": dict,
    "seconds": dict,
    "errors": dict,
    "first_seconds": _NUMBER,
    "growth_bytes": int,
    "plan": str,
}
_MODE = {
    "case": str,
    "mode": str,
    "network": str,
    "size": int,
    "rows": int,
    "photographs": int,
    "instructions": list,
    "dtypes": dict,
    "bars": dict,
    "ratio": _NUMBER,
    "seconds": dict,
    "correlation": dict,
    "error": dict,
}
_FIRST_CALL = {
    "first_call": str,
    "network": str,
    "size": int,
    "bar": _NUMBER,
    "tier": str,
    "ratios": dict,
    "seconds": dict,
    "difference": (int, float, type(None)),
}
_DROPIN = {
    "dropin": str,
    "of": str,
    "network": str,
    "size": int,
    "bar": _NUMBER,
    "once": bool,
    "rounds": dict,
    "seconds": dict,
    "ratio": _NUMBER,
    "difference": _NUMBER,
    "error": (dict, type(None)),
    "accelerated": int,
    "passed_on": int,
    "report": list,
}
_OVERHEAD = {
    "overhead": str,
    "of": str,
    "kind": str,
    "bar": _NUMBER,
    "rounds": int,
    "seconds": dict,
    "added": _NUMBER,
}
_AUDIT = {
    "audit": str,
    "images": int,
    "workers": int,
    "bar": _NUMBER,
    "ratio": _NUMBER,
    "per_second": dict,
}
_ALARMS = {
    "alarms": str,
    "networks": int,
    "with_confirmed": int,
    "above_low": int,
    "first_is_planted": int,
    "audits": list,
}
_CHECKS = {
    "checks": str,
    "rows": int,
    "classes": int,
    "seconds": dict,
    "peak_bytes": int,
    "bare_bytes": int,
    "found": dict,
    "report_seconds": _NUMBER,
    "report_peak_bytes": int,
    "site_bytes": int,
    "site_files": int,
    "open_seconds": _NUMBER,
}
_PLANTED = {
    "planted": str,
    "networks": int,
    "with_confirmed": int,
    "above_low": int,
    "audits": list,
}
_BESIDE = {"beside": str, "sets": list}
_KILLS = {
    "kills": str,
    "rounds": int,
    "images": int,
    "shards": int,
    "killed": int,
    "same_ids": int,
    "same_bytes": int,
    "moments": list,
    "whole_shards": list,
}
_SCALE = {"scale": str, "figures": dict, "assumed": dict, "runs": list}
_FLAT = {
    "flat": str,
    "images": int,
    "sizes": int,
    "peak_bytes": int,
    "seconds": _NUMBER,
}
_ADAPTIVE = {
    "case": str,
    "network": str,
    "size": int,
    "tolerance": float,
    "reference_steps": int,
    "bars": dict,
    "reached": int,
    "medians": dict,
    "photographs": list,
}
_ESTIMATOR = {
    "case": str,
    "estimator": str,
    "settings": dict,
    "players": int,
    "photographs": int,
    "evaluations": list,
    "errors": dict,
    "bars": dict,
    "share": _NUMBER,
}
_STOP = {
    "case": str,
    "stops": str,
    "settings": dict,
    "tolerance": float,
    "players": int,
    "photographs": int,
    "allowed": int,
    "evaluations": dict,
    "error": float,
    "stated": float,
    "within": float,
    "bars": dict,
}
_MEMORY = {
    "memory": str,
    "network": str,
    "calls": int,
    "growth_bytes": int,
    "bar_bytes": (int, type(None)),
    "weights_bytes": int,
    "packed_bytes": int,
}
_RANDOMISED = {
    "shares": str,
    "settings": dict,
    "mosaics": int,
    "share": _NUMBER,
    "least": (int, float, type(None)),
    "twin": (dict, type(None)),
    "networks": int,
    "likeness": dict,
    "changes": bool,
}
_ZOO = {
    "zoo": str,
    "family": str,
    "network": str,
    "size": int,
    "captured": str,
    "reason": str,
    "gradient": bool,
    "layer": str,
    "seconds": _NUMBER,
    "errors": dict,
    "said": dict,
}
_AUTO = {
    "zoo": str,
    "family": str,
    "network": str,
    "size": int,
    "chosen": list,
    "grid": list,
    "facts": dict,
    "right": bool,
    "by": str,
    "reason": str,
    "seconds": _NUMBER,
}
_GPU = {
    "gpu": str,
    "status": str,
    "device": str,
    "dry": bool,
    "seconds": _NUMBER,
    "items": list,
    "error": (str, type(None)),
}
_OP = {
    "op": str,
    "dtype": str,
    "layout": str,
    "bytes": int,
    "seconds": dict,
    "off": _NUMBER,
    "allowed": _NUMBER,
    "gigabytes_per_second": _NUMBER,
    **dict.fromkeys(("of_copy", "times_normal", "times_reference", "of_forward"), (int, float, type(None))),
}
_GUARDED = {
    "guarded": str,
    "bar": _NUMBER,
    "pairs": int,
    "ratio": dict,
    "seconds": dict,
    "milliseconds": _NUMBER,
    "difference": _NUMBER,
}


def check(results: dict[str, Any]) -> None:
    """Raises ValueError where conditions or figures are missing: no number without its conditions.

    Args:
        results: {"conditions": ..., "records": [...]}, as the scripts beside this one write it.
    """
    _fields(results.get("conditions"), _CONDITIONS, "conditions")
    records = results.get("records")
    if not isinstance(records, list) or not records:
        raise ValueError("`records` is missing or empty")
    for record in records:
        _kind(record)(record)


def _kind(record: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """What checks such a record, by a field that no other kind has."""
    kinds = {
        "gpu": _gpu,
        "gigabytes_per_second": _op,
        "chosen": _auto,
        "guarded": lambda record: _fields(record, _GUARDED, f"record {record['guarded']!r}"),
        "zoo": _zoo,
        "dropin": _dropin,
        "overhead": _overhead,
        "shares": _randomised,
        "memory": lambda record: _fields(record, _MEMORY, f"record {record['memory']!r}"),
        "audit": _audit,
        "alarms": lambda record: _fields(record, _ALARMS, f"record {record['alarms']!r}"),
        "checks": lambda record: _fields(record, _CHECKS, f"record {record['checks']!r}"),
        "planted": lambda record: _fields(record, _PLANTED, f"record {record['planted']!r}"),
        "beside": lambda record: _fields(record, _BESIDE, f"record {record['beside']!r}"),
        "kills": lambda record: _fields(record, _KILLS, f"record {record['kills']!r}"),
        "scale": lambda record: _fields(record, _SCALE, f"record {record['scale']!r}"),
        "flat": lambda record: _fields(record, _FLAT, f"record {record['flat']!r}"),
        "windows": _plan,
        "first_call": _first_call,
        "mode": _mode,
        "stops": lambda record: _fields(record, _STOP, f"record {record['case']!r}"),
        "tolerance": _adaptive,
        "network": _forward,
        "estimator": _estimator,
    }
    for field, checks in kinds.items():
        if field in record:
            return checks
    return _method


def _method(record: dict[str, Any]) -> None:
    name = record.get("case")
    _fields(record, _RECORD, f"record {name!r}")
    _fields(record, {field: kind for field, kind in _LATER.items() if field in record}, f"record {name!r}")
    if record.get("part"):
        _fields(record["part"], {"units": int, "whole": int, "unit": str}, f"{name} part")
    for setting, found in record.get("whole", {}).items():
        _fields(found, {"seconds": _NUMBER, "from_part": _NUMBER}, f"{name} whole at {setting}")
    for side in ("ours", "best", "default"):
        _fields(record["seconds"].get(side), _SPREAD, f"{name} {side}")
    for side in ("ours", "peer"):
        _fields(record["error"].get(side), {"max": _NUMBER, "rms": _NUMBER}, f"{name} error {side}")


def _forward(record: dict[str, Any]) -> None:
    name = record["network"]
    _fields(record, _FORWARD, f"record {name!r}")
    for side in ("prepared", "folded", "plain"):
        if side not in record["seconds"]:
            raise ValueError(f"{name}: `{side}` was not measured")
    for side, spread in record["seconds"].items():
        _fields(spread, _SPREAD, f"{name} {side}")
        _fields(record["errors"], {side: _NUMBER}, f"{name} errors")  # equality stands beside every speed figure


def _first_call(record: dict[str, Any]) -> None:
    name = f"{record['first_call']} on {record.get('network')}"
    _fields(record, _FIRST_CALL, name)
    for clock in ("cpu", "wall"):
        _fields(record["ratios"], {clock: _NUMBER}, f"{name} ratios")
        for side in ("ours", "peer"):
            _fields(record["seconds"].get(clock, {}).get(side), _SPREAD, f"{name} {side} {clock}")


def _dropin(record: dict[str, Any]) -> None:
    name = record["dropin"]
    _fields(record, _DROPIN, f"record {name!r}")
    if record["once"]:
        _fields(record, {"cpu": dict, "ratio_cpu": _NUMBER}, f"record {name!r}")
    else:  # equality stands beside every speed figure
        _fields(record, {"first": dict, "ratio_first": _NUMBER}, f"record {name!r}")
        for side in ("ours", "peer"):
            _fields((record["error"] or {}).get(side), {"max": _NUMBER, "rms": _NUMBER}, f"{name} error {side}")
    for side in ("plain", "accelerated"):
        _fields(record["seconds"].get(side), _SPREAD, f"{name} {side}")
        _fields(record["rounds"], {side: int}, f"{name} rounds")


def _overhead(record: dict[str, Any]) -> None:
    name = record["overhead"]
    _fields(record, _OVERHEAD, f"record {name!r}")
    for side in ("plain", "accelerated"):
        _fields(record["seconds"].get(side), _SPREAD, f"{name} {side}")


def _plan(record: dict[str, Any]) -> None:
    name = record["case"]
    _fields(record, _PLAN, f"record {name!r}")
    for side in ("local", "dense"):
        _fields(record["seconds"].get(side), _SPREAD, f"{name} {side}")
        _fields(record["errors"].get(side), {"max": _NUMBER, "rms": _NUMBER}, f"{name} error {side}")


def _mode(record: dict[str, Any]) -> None:
    name = record["case"]
    _fields(record, _MODE, f"record {name!r}")
    for side in ("exact", "fast", "bfloat16"):
        _fields(record["seconds"].get(side), _SPREAD, f"{name} {side}")
        _fields(record["dtypes"], {side: str}, f"{name} dtypes")
    _fields(record["correlation"], {"median": _NUMBER, "least": _NUMBER}, f"{name} correlation")
    _fields(record["error"], {"median": _NUMBER, "largest": _NUMBER}, f"{name} error")


def _adaptive(record: dict[str, Any]) -> None:
    name, count = record["case"], (int, float, type(None))
    _fields(record, _ADAPTIVE, f"record {name!r}")
    _fields(record["medians"], {"passes": _NUMBER, "error": _NUMBER, "fixed": dict}, f"{name} medians")
    for found in (record["medians"], *record["photographs"]):
        _fields(found["fixed"], dict.fromkeys(("first", "settled", "map", "both"), count), f"{name} fixed")
    for found in record["photographs"]:
        _fields(found["adaptive"], {"passes": int, "gap": _NUMBER, "error": _NUMBER}, f"{name} adaptive")


def _estimator(record: dict[str, Any]) -> None:
    name = record["case"]
    _fields(record, _ESTIMATOR, f"record {name!r}")
    for sampler, errors in record["errors"].items():
        if len(errors) != len(record["evaluations"]):
            raise ValueError(f"{name}: `{sampler}` has {len(errors)} errors for {record['evaluations']} evaluations")


def _audit(record: dict[str, Any]) -> None:
    name = f"record {record['audit']!r}"
    _fields(record, _AUDIT, name)
    for side in ("bare", "audit"):
        _fields(record["per_second"].get(side), _SPREAD, f"{name} {side}")


def _randomised(record: dict[str, Any]) -> None:
    name = f"record {record['shares']!r}"
    _fields(record, _RANDOMISED, name)
    _fields(record["likeness"], dict.fromkeys(("random", "chance_least", "chance_most"), _NUMBER), f"{name} likeness")
    if record["twin"] is not None:
        _fields(record["twin"], {"ours": _NUMBER, "twin": _NUMBER}, f"{name} twin")


def _zoo(record: dict[str, Any]) -> None:
    name = record["network"]
    _fields(record, _ZOO, f"record {name!r}")
    if record["captured"] in ("trace", "parts", "none") and not record["reason"].startswith("CRASHED"):
        for method in ("Saliency", "Occlusion", "GradCAM"):
            if method not in record["errors"] and method not in record["said"]:
                raise ValueError(f"{name}: `{method}` was neither measured nor refused")
    for method, found in record["errors"].items():
        _fields(found, {"ours": _NUMBER, "plain": _NUMBER}, f"{name} {method}")


def _auto(record: dict[str, Any]) -> None:
    _fields(record, _AUTO, f"record {record['network']!r}")
    if not record["right"] and not record["reason"]:
        raise ValueError(f"{record['network']}: `reason` does not say why the layer is not the right one")


def _op(record: dict[str, Any]) -> None:
    name = f"op {record['op']!r}"
    _fields(record, _OP, name)
    for side in ("kernel", "reference"):
        _fields(record["seconds"].get(side), _SPREAD, f"{name} {side}")
    if record["off"] > record["allowed"]:
        raise ValueError(f"{name}: `off` is {record['off']}, more than {record['allowed']}: the time of a wrong result")


def _gpu(record: dict[str, Any]) -> None:
    name = f"section {record['gpu']!r}"
    _fields(record, _GPU, name)
    if record["status"] not in ("done", "partial", "failed") or (record["status"] == "done") != (
        record["error"] is None
    ):
        raise ValueError(f"{name}: `status` is {record['status']!r} with the error {record['error']!r}")
    for item in record["items"]:
        _fields(item, {"name": str, "ok": bool, "took": _NUMBER}, name)
        if not item["ok"] and "error" in item:
            continue
        timed = any(field in item for field in ("of_copy", "of_floor", "times_library"))
        if timed:  # equality stands beside every speed figure
            _fields(item, {"off": _NUMBER, "seconds": dict}, f"{name}, {item['name']}")
            _fields(item["seconds"], _SPREAD, f"{name}, {item['name']}")


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

"""Speed of methods against the reference libraries, stated with its conditions: see README.md beside this file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from case import Case
from cases import CASES
from rich.console import Console
from rich.table import Table
from schema import check

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(64 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}
# grad-cam draws a bar for every call; what a terminal costs is not what is measured. Read when tqdm is imported.
QUIET = {"TQDM_DISABLE": "1"}
CONSOLE = Console(width=None if sys.stdout.isatty() else 240)
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Runs the chosen cases, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs per allocator")
    parser.add_argument("--no-tuned", action="store_true", help="leave out the pairs with the allocator tuned")
    parser.add_argument(
        "--whole", action="store_true", help="also one whole call of peers timed in parts: minutes each"
    )
    parser.add_argument("--json", type=Path, help="write the records to this file")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if arguments.case is None or case.name in arguments.case]
    records = []
    for case in chosen:
        record = measure(case, arguments.pairs, tuned=not arguments.no_tuned, whole=arguments.whole)
        records.append(record)
        CONSOLE.print(table([record]))
        if arguments.json:
            save(arguments.json, arguments.pairs, records)
    CONSOLE.print(table(records))
    for note in dict.fromkeys(line for record in records for line in notes(record)):
        CONSOLE.print(note)


def notes(record: dict[str, Any]) -> list[str]:
    """The conditions that belong to a record's figures, one sentence each."""
    lines = [f"{record['case']}: {note}." for note in record["notes"]]
    if part := record["part"]:
        share = f"{part['units']} of {part['whole']} {part['unit']}"
        lines.append(f"{record['case']}: the library's seconds are scaled from {share}.")
    for setting, found in record.get("whole", {}).items():
        lines.append(
            f"{record['case']}: one whole call at {setting} took {found['seconds']:.4g} s; its part says "
            f"{found['from_part']:.4g} s."
        )
    return lines


def measure(case: Case, n_pairs: int, *, tuned: bool, whole: bool) -> dict[str, Any]:
    """Everything about one case, each part in a process of its own."""
    warm = child("pairs", case, "--pairs", str(n_pairs))
    seconds = warm["seconds"]
    best = warm["best_setting"]
    firsts = {
        "ours": child("first", case, "--side", "ours"),
        "default": child("first", case, "--side", "peer", "--setting", str(case.default)),
    }
    firsts["best"] = (
        firsts["default"] if best == case.default else child("first", case, "--side", "peer", "--setting", str(best))
    )
    record = {
        "case": case.name,
        "library": f"{case.library} {importlib.metadata.version(case.library)}",
        "bar": case.bar,
        "bar_default": case.bar_default,
        "bar_growth": case.bar_growth,
        "plan": case.plan,
        "part": None if case.part is None else dataclasses.asdict(case.part),
        "notes": list(case.notes),
        "warm_ratio_best": seconds["best"]["median"] / seconds["ours"]["median"],
        "warm_ratio_default": seconds["default"]["median"] / seconds["ours"]["median"],
        "warm_ratio_channels_last": seconds["channels_last"]["median"] / seconds["ours"]["median"],
        "first_ratio_best": firsts["best"]["seconds"] / firsts["ours"]["seconds"],
        "first_ratio_default": firsts["default"]["seconds"] / firsts["ours"]["seconds"],
        "growth_bytes": {side: first["growth_bytes"] for side, first in firsts.items()},
        "error": child("error", case),
        **warm,
    }
    if tuned:
        options = ("--setting", str(best), "--pairs", str(n_pairs))
        again = child("best", case, *options, environment=TUNED)["seconds"]
        record["tuned_ratio_best"] = again["best"]["median"] / again["ours"]["median"]
        record["tuned_seconds"] = again
    if whole and case.part is not None:
        settings = sorted({case.default, best})
        record["whole"] = {str(n): child("whole", case, "--setting", str(n)) for n in settings}
    return record


def child(what: str, case: Case, *options: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a fresh process measured."""
    command = [sys.executable, str(HERE / "sides.py"), what, case.name, *options]
    done = subprocess.run(
        command, env={**os.environ, **QUIET, **(environment or {})}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def save(file: Path, rounds: int, records: list[dict[str, Any]]) -> None:
    """Writes the records with their conditions, where `schema` lets them pass; the folder is made."""
    results = {"conditions": conditions(rounds), "records": records}
    check(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


def conditions(n_pairs: int) -> dict[str, Any]:
    """Where and under what this was measured."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions(),
        "pairs": n_pairs,
        "allocator": "glibc default; tuned_* with " + ", ".join(f"{k}={v}" for k, v in TUNED.items()),
    }


def versions() -> dict[str, str]:
    """Of ours, of torch, and of those peers that are installed."""
    found = {}
    for name in ("xai_fast", "torch", "torchvision", "captum", "grad-cam", "lime", "shap", "torchcam"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them: ratios are the library's time over ours."""
    made = Table("case", "library", "ours", "library best", "ratio", "bar", "default", "bar", "ch. last", "first call",
                 "tuned alloc.", "outside", "floor", "error ours / lib (rms)",
                 "growth ours (bar) / lib best / default")  # fmt: skip
    for record in records:
        seconds = record["seconds"]
        made.add_row(
            record["case"],
            record["library"],
            _seconds(seconds["ours"]),
            f"{_seconds(seconds['best'])} at {record['best_setting']}"
            + (", from a part" if record.get("part") else ""),
            f"{record['warm_ratio_best']:.2f}x",
            _bar(record["bar"]),
            f"{record['warm_ratio_default']:.2f}x",
            _bar(record.get("bar_default")),
            f"{record['warm_ratio_channels_last']:.2f}x",
            f"{record['first_ratio_best']:.2f}x",
            f"{record['tuned_ratio_best']:.2f}x" if "tuned_ratio_best" in record else "-",
            _share(record["outside_share"]),
            _share(record["floor_fraction"]),
            f"{record['error']['ours']['rms']:.0e} / {record['error']['peer']['rms']:.0e}",
            _growth(record),
        )
    return made


def _seconds(summary: dict[str, float]) -> str:
    return f"{summary['median']:.3g} s (IQR {summary['iqr']:.2g})"


def _growth(record: dict[str, Any]) -> str:
    ours, best, default = (record["growth_bytes"][side] / 1e9 for side in ("ours", "best", "default"))
    bar = f" ({record['bar_growth'] / 1e9:g})" if record.get("bar_growth") else ""
    return f"{ours:.2f}{bar} / {best:.2f} / {default:.2f} GB"


def _bar(value: float | None) -> str:
    return "-" if value is None else f"{value:g}x"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()

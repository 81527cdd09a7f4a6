"""Everything about a GPU in one command: builds, checks every op, plan and method, and measures them; see README.md.

    python benchmarks/gpu.py --json gpu.json            # under 8 minutes; no network; goes on where it stopped
    python benchmarks/gpu.py --dry --json dry.json      # the same code at small sizes on the CPU

Each part of a section is a process of its own, which may crash or be stopped: what it found by then is kept, what
failed is written down, and the rest goes on. Parts that only check run side by side, what is timed runs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schema import check

HERE = Path(__file__).resolve().parent
LOST = 3  # a child's exit status when the device answers no more: another process goes on


@dataclass(frozen=True)
class Where:
    """Where and how large a child measures.

    Attributes:
        device: of torch.
        dry: small sizes, few cases.
    """

    device: str
    dry: bool


Item = tuple[str, Callable[[], dict[str, Any]]]
Items = Callable[[Where, str], Iterator[Item]]


@dataclass(frozen=True)
class Section:
    """A part of the record.

    Attributes:
        module: beside this file, which has a function of the section's name that yields its items for a part.
        seconds: at most, of the budget; what one leaves is there for those that follow.
        parts: how many, of which each takes every n-th item.
        together: whether they run side by side; what is timed runs alone.
    """

    module: str
    seconds: float
    parts: int = 1
    together: bool = False


SECTIONS = {
    "build": Section("gpu_checks", 100),
    "ops": Section("gpu_checks", 90, parts=8, together=True),
    "plans": Section("gpu_checks", 40),
    "methods": Section("gpu_checks", 90, parts=8, together=True),
    "bandwidth": Section("gpu_speed", 60),
    "fused": Section("gpu_fused", 60),
    "forwards": Section("gpu_speed", 110),
    "speed": Section("gpu_speed", 90),
    "libraries": Section("gpu_speed", 60),
}


def main() -> None:
    """Runs the sections that are not done, prints a summary, and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="the record; what it holds already is not done again")
    parser.add_argument("--seconds", type=float, default=470, help="for all of it; the rest is left for another call")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="default: all")
    parser.add_argument("--dry", action="store_true", help="small sizes on the CPU")
    parser.add_argument("--no-build", action="store_true", help="use what is built")
    parser.add_argument("--child", nargs=3, metavar=("SECTION", "PART", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--known", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    where = Where("cpu" if arguments.dry else "cuda", arguments.dry)
    if arguments.child:
        name, part, file = arguments.child
        known = set(json.loads(arguments.known.read_text())) if arguments.known else set()
        sys.exit(child(name, part, Path(file), where, arguments.until, known))
    skipped = {"build"} if arguments.dry or arguments.no_build else set()
    chosen = [name for name in arguments.section or SECTIONS if name not in skipped]
    results = measure(arguments.json, chosen, where, arguments.seconds)
    print("\n".join(summary(results)))
    sys.exit(0 if all(record["status"] == "done" for record in results["records"]) else 1)


def measure(file: Path, chosen: list[str], where: Where, seconds: float) -> dict[str, Any]:
    """The record, in which each chosen section is carried on with."""
    until = time.time() + seconds
    results = json.loads(file.read_text()) if file.exists() else {"records": []}
    records = {record["gpu"]: record for record in results["records"]}
    for name in chosen:
        before = records.get(name)
        if before is not None and before["status"] == "done":
            continue
        records[name] = section(name, where, min(until, time.time() + SECTIONS[name].seconds), before)
        ordered = [records[each] for each in SECTIONS if each in records]
        floors(ordered)
        results = {"conditions": conditions(ordered), "records": ordered}
        check(results)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}: {records[name]['status']}, {len(records[name]['items'])} items", flush=True)
    return results


def section(name: str, where: Where, until: float, before: dict[str, Any] | None) -> dict[str, Any]:
    """One section's record: its parts' items, and why it is not whole."""
    began, settings = time.time(), SECTIONS[name]
    known = [] if before is None else before["items"]
    parts = [f"{part}/{settings.parts}" for part in range(settings.parts)]
    at_once = min(settings.parts, max(1, (os.cpu_count() or 2) // 2)) if settings.together else 1
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda part: _part(name, part, where, until, {item["name"] for item in known}), parts))
    errors = [error for _, error in found if error]
    out_of_time = any(error == "out of time" for error in errors)
    return {
        "gpu": name,
        "status": "partial" if out_of_time else "failed" if errors else "done",
        "device": where.device,
        "dry": where.dry,
        "seconds": time.time() - began + (before["seconds"] if before else 0.0),
        "items": known + [item for items, _ in found for item in items],
        "error": "; ".join(dict.fromkeys(errors)) or None,
    }


def _part(name: str, part: str, where: Where, until: float, known: set[str]) -> tuple[list[dict[str, Any]], str | None]:
    """Items of one part, by as many processes as it takes: a device that answers no more ends one."""
    found: list[dict[str, Any]] = []
    while True:
        if time.time() >= until:
            return found, "out of time"
        items, status, said = _process(name, part, where, until, known | {item["name"] for item in found})
        found += items
        if status == 0:
            return found, None
        if status == LOST and items:
            continue
        return found, "out of time" if status == "late" else f"part {part} ended with {status}: {said[-2000:]}"


def _process(
    name: str, part: str, where: Where, until: float, known: set[str]
) -> tuple[list[dict[str, Any]], int | str, str]:
    with tempfile.TemporaryDirectory() as folder:
        items, names = Path(folder) / "items", Path(folder) / "known"
        names.write_text(json.dumps(sorted(known)))
        command = [sys.executable, str(HERE / "gpu.py"), "--json", "-", "--child", name, part, str(items)]
        command += [f"--until={until}", f"--known={names}"] + ["--dry"] * where.dry
        with (Path(folder) / "log").open("w+") as log:
            try:
                grace = 20  # to finish the item that is running
                status: int | str = subprocess.run(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=max(until - time.time(), 0) + grace,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                status = "late"
            log.seek(0)
            said = log.read()
        lines = items.read_text().splitlines() if items.exists() else []
    return [json.loads(line) for line in lines], "late" if status == 4 else status, said


def child(name: str, part: str, file: Path, where: Where, until: float, known: set[str]) -> int:
    """Measures one part of a section, item by item, each written as soon as it is known.

    Returns:
        0, 4 when time is up, or `LOST`.
    """
    number, of = (int(text) for text in part.split("/"))
    items: Items = getattr(__import__(SECTIONS[name].module), name)
    with file.open("a") as written:
        for index, (label, run) in enumerate(items(where, part)):
            if index % of != number or label in known:
                continue
            if time.time() >= until:
                return 4
            began = time.time()
            try:
                item = {"ok": True, **run()}
            except Exception as error:
                where_from = traceback.extract_tb(error.__traceback__)[-1]
                said = (
                    f"{type(error).__name__}: {str(error)[:600]} ({Path(where_from.filename).name}:{where_from.lineno})"
                )
                item = {"ok": False, "error": said}
            written.write(json.dumps({"name": label, **item, "took": time.time() - began}) + "\n")
            written.flush()
            if not item["ok"] and _lost(where):
                return LOST
    return 0


def _lost(where: Where) -> bool:
    """Whether the device answers no more, as after a kernel that read where it must not."""
    if where.device == "cpu":
        return False
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def floors(records: list[dict[str, Any]]) -> None:
    """Writes beside the seconds of a method the share of them that the model's best forwards of its rows would take."""
    best: dict[tuple[str, str], float] = {}
    for record in records:
        for item in record["items"]:
            if "best" in item:
                key = item["what"], item["dtype"]
                best[key] = min(best.get(key, item["best"]), item["best"])
    for record in records:
        for item in record["items"]:
            if "rows" in item and (per_row := best.get((item["floor"], item["dtype"]))):
                item["of_floor"] = item["rows"] * per_row / item["seconds"]["median"]


def conditions(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Where and under what this was measured; the device says what it is in the first item of a section."""
    from methods import conditions as of_methods

    machine = next((item for record in records for item in record["items"] if item["name"] == "machine"), {})
    return {**of_methods(1), "python": platform.python_version(), "machine": machine}


def summary(results: dict[str, Any]) -> list[str]:
    """The record as a person reads it: what failed, and shares of the bars."""
    lines = []
    for record in results["records"]:
        items = record["items"]
        bad = [item for item in items if not item["ok"]]
        lines.append(f"{record['gpu']}: {record['status']}, {len(items) - len(bad)} of {len(items)} hold")
        lines += [f"  {item['name']}: {item.get('error', 'does not hold')}" for item in bad[:20]]
        lines += [f"  {record['error']}"] * bool(record["error"])
        for item in items:
            for key in ("of_copy", "of_floor", "times_library"):
                if key in item:
                    lines.append(f"  {item['name']}: {item[key]:.2f} {key.replace('_', ' ')}")
    return lines


if __name__ == "__main__":
    main()

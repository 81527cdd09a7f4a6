"""Whether an audit that is killed at random moments and resumed ends with the bytes of one that nobody disturbed.

usage: python benchmarks/kills.py [--store N] [--local N] [--ray N] [--seed N] [--json FILE]

A round is a run in a new folder, SIGKILL at a random moment (after a number of shards that is drawn evenly, and a share
of the time that one takes), and the same command again, until it ends by itself. `store` is the store with made-up
answers, `local` and `ray` are GradCAM of the demonstration's network on either executor (on Ray the process that began
the run is killed).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from audit import write_photographs
from methods import save

from xai_fast.audit.reading import read

ROOT = Path(__file__).parents[1]
FAKE = ROOT / "tests" / "audit" / "fake_audit.py"
IMAGES, SHARD = 600, 8
STARTED, FINISHED = 180.0, 600.0  # seconds until a plan is there, and until a run has ended
TRIES = 5  # to resume: processes of a killed run may still hold shards for a moment

Command = Callable[[Path], list[str]]


def commands(photographs: Path) -> dict[str, Command]:
    """What makes a run in a folder."""
    audit = [sys.executable, "-c", "from xai_fast.cli import main; main()", "audit", "run", "--data", str(photographs)]
    audit += ["--shard-size", str(SHARD)]
    return {
        "store": lambda out: [sys.executable, str(FAKE), str(out), "--images", str(IMAGES)],
        "local": lambda out: [*audit, "--out", str(out)],
        "ray": lambda out: [*audit, "--out", str(out), "--executor", "ray", "--actors", "2"],
    }


def started(command: list[str], out: Path) -> tuple[subprocess.Popen[bytes], float]:
    """A run whose plan is there, and when it was."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + STARTED
    while not (out / "plan.json").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    return process, time.monotonic()


def undisturbed(command: Command, out: Path) -> float:
    """Seconds per shard."""
    process, began = started(command(out), out)
    total = len(read(out).plan.sizes)
    while shards_of(out) < total and process.poll() is None:
        time.sleep(0.002)
    seconds = time.monotonic() - began
    assert process.wait(FINISHED) == 0, "the undisturbed run failed"
    return seconds / total


def killed(command: Command, out: Path, after: int, delay: float) -> bool:
    """Whether a run was still at work when it was killed, so many shards and seconds after its plan was there."""
    process, _ = started(command(out), out)
    while shards_of(out) < after and process.poll() is None:
        time.sleep(0.0005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    return process.wait(FINISHED) == -signal.SIGKILL


def shards_of(out: Path) -> int:
    """How many are there."""
    return len(list((out / "shards").glob("*.parquet")))


def resumed(command: Command, out: Path) -> None:
    """Goes on until it has ended by itself."""
    for _ in range(TRIES):
        if subprocess.run(command(out), check=False, capture_output=True, timeout=FINISHED).returncode == 0:
            return
        time.sleep(3)
    raise RuntimeError("a killed run did not come to its end")


def contents(out: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that must be the same: shards, what was noted of them, the list of images, and the plan's own part."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(("plan.json", "times/", "claims/")):
            yield name, path.read_bytes()
    yield "plan", read(out).plan.fingerprint.encode()


def ids(out: Path) -> list[int]:
    """In the order of the rows."""
    return read(out).table(["id"]).column("id").to_pylist()


def rounds(kind: str, command: Command, count: int, draws: random.Random, work: Path) -> dict[str, Any]:
    """Plays the rounds of one kind."""
    whole = work / f"{kind}-undisturbed"
    seconds = undisturbed(command, whole)
    bytes_of, ids_of = dict(contents(whole)), ids(whole)
    total = len(read(whole).plan.sizes)
    record: dict[str, Any] = {"kills": kind, "rounds": count, "images": len(ids_of), "shards": total}
    record |= {"killed": 0, "same_ids": 0, "same_bytes": 0, "moments": [], "whole_shards": []}
    for n in range(count):
        out, after, delay = work / f"{kind}-{n}", draws.randrange(total), draws.uniform(0, 1.5 * seconds)
        record["killed"] += killed(command, out, after, delay)
        there = shards_of(out)
        resumed(command, out)
        same = ids(out) == ids_of, dict(contents(out)) == bytes_of
        record["same_ids"], record["same_bytes"] = record["same_ids"] + same[0], record["same_bytes"] + same[1]
        record["moments"].append([after, round(delay, 4)])
        record["whole_shards"].append(there)
        print(
            f"{kind} {n + 1}/{count}: killed {delay:.4f} s after shard {after} of {total}; {there} were there",
            flush=True,
        )
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, count in (("store", 50), ("local", 5), ("ray", 2)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    draws = random.Random(chosen.seed)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name:
        photographs = Path(name) / "photographs"
        write_photographs(photographs, 240)
        kinds = commands(photographs)
        records = []
        for kind, command in kinds.items():
            if count := getattr(chosen, kind):
                records.append(rounds(kind, command, count, draws, Path(name)))
                if chosen.json:
                    save(chosen.json, 1, records)
    for record in records:
        print({name: value for name, value in record.items() if not isinstance(value, list)}, flush=True)
    if any(record["rounds"] != record[same] for record in records for same in ("same_ids", "same_bytes")):
        raise SystemExit("a run ended with other rows or bytes")


if __name__ == "__main__":
    main()

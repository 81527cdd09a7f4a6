"""What an audit of millions of images costs: figures per image as measured here, and a simulation of many workers.

usage: python benchmarks/scale.py [--json FILE]

Measured: a GradCAM audit of the demonstration's network (stored bytes per image, seconds until a process is ready, to
write a shard, and to look whether one is there), and the list of images (seconds and peak memory per row). Seconds per
image are those of `audit.py`'s record, taken on a quiet machine; what they are here stands beside them.
Simulated with them: workers that are handed shards one by one, by the code that does so on Ray, and fail at random;
photographs come through one shared store of limited bandwidth. A worker that fails loses the shard in work.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from audit import Timed, write_photographs
from methods import save
from timing import peak

from xai_fast.audit.auditing import carry_out
from xai_fast.audit.executors.shares import TRIES, Shares
from xai_fast.audit.manifest import manifest_of
from xai_fast.audit.order import Order
from xai_fast.audit.plan import shard_size_for

PHOTOGRAPHS, ROWS = 192, 300_000
IMAGES, WORKERS = (1_000_000, 100_000_000), (1, 10, 100, 1000)
LIFETIMES = (None, 24.0, 1.0)  # hours between two failures of one worker, on average
BANDWIDTH = 1e9  # bytes per second of the store of photographs, an assumption; so are the next three
PHOTOGRAPH = 110_000  # bytes
ASK = 1e-3  # seconds in which whoever hands out shards answers one worker
REPLACED = 60.0  # seconds until a worker that failed is replaced, before it makes ready
QUIET = Path(__file__).parent / "results" / "0.1.0" / "audit--zen3.json"  # images per second, nothing else running
_ASKS, _FAILED = -1, -2  # events of a worker, besides the shard that it has written


def measured() -> dict[str, float]:
    """Figures of this machine."""
    before, began = peak(), time.perf_counter()
    rows = [
        {"uri": f"n{n % 1000:08d}/n{n % 1000:08d}_{n:09d}.JPEG", "length": n, "label": f"n{n % 1000:08d}"}
        for n in range(ROWS)
    ]
    manifest_of(rows).sha256()
    found = {"list_seconds": (time.perf_counter() - began) / ROWS, "list_bytes": (peak() - before) / ROWS}
    with tempfile.TemporaryDirectory() as name:
        folder, watch = Path(name) / "photographs", Timed()
        write_photographs(folder, PHOTOGRAPHS)
        began = time.perf_counter()
        order = Order(model="demo", data=folder, methods=("GradCAM",), shard_size=PHOTOGRAPHS)
        run = carry_out(order, Path(name) / "run", workers=1, watch=watch)
        ended, shards = time.perf_counter(), run.shards
        table, writes = shards.read(0), []
        for _ in range(11):
            again = time.perf_counter()
            shards.write(0, table, {})
            writes.append(time.perf_counter() - again)
        again = time.perf_counter()
        for _ in range(50):
            shards.facts(0)
        found |= {
            "ready_seconds": watch.began - began,
            "image_seconds": 1 / json.loads(QUIET.read_text())["records"][0]["per_second"]["audit"]["median"],
            "image_seconds_here": (ended - watch.began) / PHOTOGRAPHS,
            "stored_bytes": shards.path(0).stat().st_size / PHOTOGRAPHS,
            "write_seconds": statistics.median(writes),
            "look_seconds": (time.perf_counter() - again) / 50,
        }
    return found


class Simulation:
    """One run of many workers.

    Args:
        figures: see `measured`.
        images: of the run.
        workers: that share it.
        lifetime: hours between two failures of a worker, on average; None for none.
    """

    def __init__(self, figures: dict[str, float], images: int, workers: int, lifetime: float | None) -> None:
        self._figures, self._lifetime, self._draws = figures, lifetime, random.Random(0)
        size = shard_size_for(images, 1)
        per_image = max(figures["image_seconds"], workers * PHOTOGRAPH / BANDWIDTH)
        self._shard_seconds = size * per_image + figures["write_seconds"]
        self._shares, self._free = Shares(), 0.0  # when whoever hands out shards has time again
        self._shares.begin(range(-(-images // size)))
        self._dies = [self._life() for _ in range(workers)]
        self._events = [(figures["ready_seconds"], worker, _ASKS) for worker in range(workers)]
        self._written = self._failures = self._lost = 0
        self._lost_seconds = self._ended = 0.0
        self._facts = {"images": images, "workers": workers, "hours_between_failures": lifetime}
        self._facts |= {"shards": -(-images // size), "shard_seconds": self._shard_seconds}
        self._facts["bound"] = "reading" if per_image > figures["image_seconds"] else "the model"

    def run(self) -> dict[str, Any]:
        """Its hours, where they went, and what was lost."""
        heapq.heapify(self._events)
        while self._shares.waiting or any(self._shares.held.values()):
            now, worker, what = heapq.heappop(self._events)
            if what == _FAILED:
                self._fail(now, worker)
                continue
            if what >= 0:
                self._shares.done(worker, what, [])
                self._written, self._ended = self._written + 1, now
            self._ask(now, worker)
        busy = self._written * self._shard_seconds
        return self._facts | {
            "hours": self._ended / 3600,
            "busy": busy / (self._ended * len(self._dies)),
            "failures": self._failures,
            "shards_lost": self._lost,
            "seconds_lost_share": self._lost_seconds / (self._lost_seconds + busy),
            "given_up": len(self._shares.given_up),
        }

    def _life(self) -> float:
        return float("inf") if self._lifetime is None else self._draws.expovariate(1 / (3600 * self._lifetime))

    def _fail(self, now: float, worker: int) -> None:
        self._failures, self._lost = self._failures + 1, self._lost + len(self._shares.lost(worker))
        back = now + REPLACED + self._figures["ready_seconds"]
        self._dies[worker] = back + self._life()
        heapq.heappush(self._events, (back, worker, _ASKS))

    def _ask(self, now: float, worker: int) -> None:
        self._free = max(self._free, now) + ASK
        if (index := self._shares.ask(worker)) is None:
            heapq.heappush(self._events, (now + 10.0, worker, _ASKS))  # others may still fail
            return
        finish = self._free + self._shard_seconds
        if self._dies[worker] < finish:
            self._lost_seconds += max(0.0, self._dies[worker] - self._free)
            heapq.heappush(self._events, (max(self._dies[worker], now), worker, _FAILED))
        else:
            heapq.heappush(self._events, (finish, worker, index))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    figures = measured()
    print(json.dumps(figures, indent=1))
    runs = [Simulation(figures, n, w, hours).run() for n in IMAGES for w in WORKERS for hours in LIFETIMES]
    for run in runs:
        between = run["hours_between_failures"]
        print(
            f"{run['images']:11,d} images {run['workers']:5d} workers, a failure in {between or 'never'} h: "
            f"{run['hours']:9.2f} h, busy {run['busy']:.0%}, {run['failures']} failures lose {run['shards_lost']} of "
            f"{run['shards']} shards ({run['seconds_lost_share']:.1%} of work), {run['given_up']} given up; "
            f"bound by {run['bound']}"
        )
    assumed = {"bandwidth": BANDWIDTH, "photograph": PHOTOGRAPH, "ask": ASK, "replaced": REPLACED, "tries": TRIES}
    if chosen.json:
        save(chosen.json, 1, [{"scale": "GradCAM", "figures": figures, "assumed": assumed, "runs": runs}])


if __name__ == "__main__":
    main()

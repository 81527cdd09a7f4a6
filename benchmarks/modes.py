"""What the fast mode gains over the exact one, and what it changes: see README.md.

    python benchmarks/modes.py --json modes.json

On trained networks, because random ones exaggerate rounding. Each case has a process of its own, in which the sides
take turns on one photograph after the other. A ratio is the exact mode's time over the fast one's. The fast mode stays
in single precision where half precision is slower, so there is a third side, which computes in bfloat16 whatever it
costs: what the fast mode changes where it does something is read from that one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from methods import CONSOLE, save
from rich.table import Table
from timing import spread
from torch import Tensor
from trained import NETWORKS, subjects

import xai_fast as xf
from xai_fast.graph import processor

BAR_RATIO, BAR_CORRELATION = {"Occlusion": 1.5}, 0.99
METHODS: dict[str, Callable[[xf.Engine, int], Any]] = {
    "SmoothGrad": lambda engine, n: xf.SmoothGrad(engine, n_samples=n),
    "IntegratedGradients": lambda engine, n: xf.IntegratedGradients(engine, n_steps=n),
    "Occlusion": lambda engine, _n: xf.Occlusion(engine, window=15, stride=8),
}
CASES = {f"{method}-{network}": (method, network) for method in METHODS for network in NETWORKS}
SIDES = ("exact", "fast", "bfloat16")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # in /proc/cpuinfo, the last on ARM


def main() -> None:
    """Runs the chosen cases, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--photographs", type=int, default=12, help="on each of which both modes are called once")
    parser.add_argument(
        "--rows", type=int, default=50, help="noisy copies, or points of the path; Occlusion has its windows"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the input, for trying things out")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.photographs, arguments.rows, arguments.size)))
        return
    records = []
    for name in arguments.case or CASES:
        options = [f"--{option}={getattr(arguments, option)}" for option in ("photographs", "rows", "size")]
        command = [sys.executable, __file__, "--child", name, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        records.append(json.loads(done.stdout.strip().splitlines()[-1]))
        if arguments.json:
            save(arguments.json, arguments.photographs, records)
    CONSOLE.print(table(records))


def measure(name: str, count: int, rows: int, size: int) -> dict[str, Any]:
    """Everything about one case, in this process."""
    method, network = CASES[name]
    model, inputs, targets = subjects(network, count, size)
    engines = {side: xf.Engine(model, mode="exact" if side == "exact" else "fast", prepare=True) for side in SIDES}
    dtypes = {}
    for side, engine in engines.items():
        with precision(side):
            dtypes[side] = str(engine.prepared(frozenset(), inputs[:1]).dtype).removeprefix("torch.")
            METHODS[method](engine, rows).attribute(inputs[:1], targets[:1])  # settles the batch size
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    correlations, errors = [], []
    for turn in range(count):
        maps: dict[str, Tensor] = {}
        for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
            made = METHODS[method](engines[side], rows)
            with precision(side):
                began = time.perf_counter()
                maps[side] = made.attribute(inputs[turn : turn + 1], targets[turn : turn + 1])
                times[side].append(time.perf_counter() - began)
        correlations.append(rank_correlation(maps["exact"], maps["bfloat16"]))
        errors.append(((maps["bfloat16"] - maps["exact"]).norm() / maps["exact"].norm()).item())
    seconds = {side: spread(values) for side, values in times.items()}
    return {
        "case": name,
        "mode": "fast",
        "network": network,
        "size": size,
        "rows": rows,
        "photographs": count,
        "instructions": instructions(),
        "dtypes": dtypes,
        "bars": {"ratio": BAR_RATIO.get(method, 1.7), "correlation": BAR_CORRELATION},
        "ratio": seconds["exact"]["median"] / seconds["fast"]["median"],
        "seconds": seconds,
        "correlation": {"median": statistics.median(correlations), "least": min(correlations)},
        "error": {"median": statistics.median(errors), "largest": max(errors)},
    }


@contextmanager
def precision(side: str) -> Iterator[None]:
    """The third side is told that half precision pays."""
    with processor.assuming(halves=True) if side == "bfloat16" else nullcontext():
        yield


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, over all elements."""
    ranks = torch.stack([values.flatten().argsort().argsort().double() for values in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()


def instructions() -> list[str]:
    """Which instructions for bfloat16 this processor has; without any, it is computed in float32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    return [name for name in BFLOAT16 if name in words]


def table(records: list[dict[str, Any]]) -> Table:
    """One line per case."""
    columns = ("case", "exact s", "fast s", "in", "ratio (bar)", "bfloat16 s", "by",
               "its rank correlation median / least (bar)", "its difference median / largest")  # fmt: skip
    shown = Table(*columns, title='mode="fast" over mode="exact", per photograph')
    for record in records:
        seconds, bars, found, error = (record[key] for key in ("seconds", "bars", "correlation", "error"))
        shown.add_row(
            record["case"],
            f"{seconds['exact']['median']:.3g}",
            f"{seconds['fast']['median']:.3g}",
            record["dtypes"]["fast"],
            f"{record['ratio']:.2f}x ({bars['ratio']})",
            f"{seconds['bfloat16']['median']:.3g}",
            ", ".join(record["instructions"]) or "emulation",
            f"{found['median']:.4f} / {found['least']:.4f} ({bars['correlation']})",
            f"{error['median']:.1e} / {error['largest']:.1e}",
        )
    return shown


if __name__ == "__main__":
    main()

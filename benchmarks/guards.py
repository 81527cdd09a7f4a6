"""What it costs that nothing is wrong in silence: calls as they are beside calls without the checks.

    python benchmarks/guards.py --json guards.json

Per warm call the engine asks whether the model is still the one that was prepared, keeps what a forward may leave
behind, and measures sizes where a fused step could lose NaN. The other side has a frozen engine, no such measurements
and nothing put back. Both run in one process, prepared and warm, in turns, each first every other time; a ratio is the
median of the ratios of such pairs. `--case` takes those of `methods.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from case import Case, inputs, network, targets
from cases import CASES
from methods import CONSOLE, save
from rich.table import Table
from timing import spread, timed

import xai_fast as xf
from xai_fast.engine import store
from xai_fast.graph.care import Care

BAR = 1.03  # that an issue asks for
NETWORKS = ("resnet18", "resnet50")


def main() -> None:
    """Runs the chosen cases, prints a table and writes the records."""
    named = {case.name: case for case in CASES if case.network in NETWORKS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=named, help="default: all on ResNet-18 and ResNet-50")
    parser.add_argument("--pairs", type=int, default=15, help="interleaved pairs, at most")
    parser.add_argument("--seconds", type=float, default=60, help="no further pair of a case begins after these")
    parser.add_argument("--threads", type=int, help="of torch; one leaves a core to whatever else runs")
    parser.add_argument("--json", type=Path, help="goes on where this file stops")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    records = json.loads(arguments.json.read_text())["records"] if arguments.json and arguments.json.exists() else []
    done = {record["guarded"] for record in records}
    for name in arguments.case or named:
        if name in done:
            continue
        records.append(measure(named[name], arguments.pairs, arguments.seconds))
        CONSOLE.print(table(records[-1:]))
        if arguments.json:
            save(arguments.json, arguments.pairs, records)
    CONSOLE.print(table(records))


def measure(case: Case, pairs: int, seconds: float) -> dict[str, Any]:
    """One record."""
    torch.manual_seed(0)
    x = inputs(case)
    calls, sides = {}, {"guarded": nullcontext, "bare": unguarded}
    net = network(case)  # of both, so that what is prepared, and what was timed for it, is the same
    target = targets(net, x, case.outputs)
    for side, context in sides.items():
        engine = xf.Engine(net, plan=case.plan, prepare=True, frozen=side == "bare")
        calls[side] = _call(case.method(engine), x, target)
        with context():
            values = [calls[side]() for _ in range(2)]
        calls[side, "values"] = values[-1]
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for pair in range(pairs):
        for side in (list(sides), list(sides)[::-1])[pair % 2]:
            with sides[side]():
                taken[side].append(timed(calls[side]))
        if sum(map(sum, taken.values())) > seconds and pair >= 2:
            break
    ratios = [guarded / bare for guarded, bare in zip(taken["guarded"], taken["bare"], strict=True)]
    difference = (calls["guarded", "values"] - calls["bare", "values"]).abs().max()
    return {
        "guarded": case.name,
        "bar": BAR,
        "pairs": len(ratios),
        "ratio": spread(ratios),
        "seconds": {side: spread(each) for side, each in taken.items()},
        "milliseconds": 1e3 * statistics.median(a - b for a, b in zip(taken["guarded"], taken["bare"], strict=True)),
        "difference": float(difference / calls["bare", "values"].abs().max().clamp_min(1e-30)),
    }


def _call(method: Any, x: torch.Tensor, target: Any) -> Any:
    return lambda: method.attribute(x, target)


def _always(*_inputs: Any) -> bool:
    return True


def _nothing(**_options: Any) -> Any:
    return nullcontext()


@contextmanager
def unguarded() -> Iterator[None]:
    """Without measuring sizes, and without putting anything back; the engine has to be frozen beside it."""
    with (
        mock.patch.object(Care, "suffices", _always),
        mock.patch.object(store, "untouched", _nothing),
    ):
        yield


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them."""
    made = Table("case", "guarded", "bare", "ratio (IQR)", "bar", "pairs", "ms", "largest difference")
    for record in records:
        seconds = record["seconds"]
        made.add_row(
            record["guarded"],
            f"{seconds['guarded']['median']:.4g} s",
            f"{seconds['bare']['median']:.4g} s",
            f"{record['ratio']['median']:.4f} ({record['ratio']['iqr']:.4f})",
            f"{record['bar']:g}",
            str(record["pairs"]),
            f"{record['milliseconds']:.2f}",
            f"{record['difference']:.0e}",
        )
    return made


if __name__ == "__main__":
    main()

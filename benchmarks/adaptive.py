"""How many points adaptive integrated gradients take, beside the best fixed number of them: see README.md.

    python benchmarks/adaptive.py --json adaptive.json

For each photograph all fixed numbers of Gauss-Legendre points are tried upwards, and every map is compared with one of
REFERENCE_STEPS points. A pass is a model row at a point of the path; rows that only run forward count as whole passes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from methods import CONSOLE, save
from rich.table import Table
from torch import Tensor
from trained import NETWORKS, subjects

import xai_fast as xf
from xai_fast.models.demo import CLASSES

TOLERANCES = (0.05, 0.02, 0.01)
REFERENCE_STEPS = 2000
MOST = 128  # fixed points that are tried
STREAK = 8  # numbers in a row that reach a tolerance before it counts as reached for good
ENDS = 2  # rows of every call that are not passes: the input itself and the baseline
BAR_PASSES, BAR_ERROR = 1.0, 0.05

Found = tuple[float, float]
"""A map's gap as a share of the difference in scores, and its distance from the reference as a share of that's norm."""


def main() -> None:
    """Runs the chosen networks, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: demo")
    parser.add_argument("--photographs", type=int, default=12)
    parser.add_argument("--size", type=int, default=224, help="side of the input, for trying things out")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.photographs, arguments.size)))
        return
    records = []
    for name in arguments.network or ["demo"]:
        options = [f"--{option}={getattr(arguments, option)}" for option in ("photographs", "size")]
        done = subprocess.run(
            [sys.executable, __file__, "--child", name, *options], stdout=subprocess.PIPE, text=True, check=True
        )
        records += json.loads(done.stdout.strip().splitlines()[-1])
        if arguments.json:
            save(arguments.json, arguments.photographs, records)
    CONSOLE.print(table(records))


def measure(network: str, count: int, size: int, reference_steps: int = REFERENCE_STEPS, most: int = MOST) -> list[Any]:
    """One record per tolerance: the numbers of points for every photograph, and their medians."""
    model, inputs, targets = subjects(network, count, size)
    engine = xf.Engine(model)
    shown: dict[float, list[dict[str, Any]]] = {tolerance: [] for tolerance in TOLERANCES}
    for index in range(count):
        x, target = inputs[index : index + 1], targets[index : index + 1]
        reference = xf.IntegratedGradients(engine, n_steps=reference_steps, quadrature="middle").attribute(x, target)

        def fixed(n: int, x: Tensor = x, target: Tensor = target, reference: Tensor = reference) -> Found:
            return judged(xf.IntegratedGradients(engine, n_steps=n)(x, target), reference)

        tried = search(fixed, most)
        for tolerance, photographs in shown.items():
            method = xf.IntegratedGradients(engine, tolerance=tolerance)
            found = adaptive(method, x, target, reference)
            photographs.append({"photograph": CLASSES[index], "adaptive": found, "fixed": best(tried, tolerance)})
    return [_record(network, size, tolerance, reference_steps, found) for tolerance, found in shown.items()]


def adaptive(method: xf.IntegratedGradients, x: Tensor, target: Tensor, reference: Tensor) -> dict[str, Any]:
    """What one adaptive call took, and how good its map is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a tolerance was not reached stands in the gap
        began = time.perf_counter()
        explanation = method(x, target)
        seconds = time.perf_counter() - began
    gap, error = judged(explanation, reference)
    passes = int(explanation.evaluations.item()) - ENDS
    return {"passes": passes, "gap": gap, "error": error, "seconds": seconds}


def judged(explanation: xf.Explanation, reference: Tensor) -> Found:
    """The relative gap as `tolerance` is measured by, and the relative distance (L2) from the reference."""
    assert explanation.completeness_gap is not None
    gap, score = explanation.completeness_gap.item(), explanation.score.item()
    difference = explanation.values.double().sum().item() - gap
    relative = abs(gap) / max(abs(difference), 1e-6 * abs(score))
    return relative, ((explanation.values - reference).norm() / reference.norm()).item()


def search(fixed: Callable[[int], Found], most: int) -> dict[int, Found]:
    """Upwards over the numbers of points, until the tightest tolerance has been reached for good."""
    tried: dict[int, Found] = {}
    for n in _counts(most):
        tried[n] = fixed(n)
        latest = list(tried.values())[-STREAK:]
        within = all(gap <= min(TOLERANCES) and error <= BAR_ERROR for gap, error in latest)
        if len(latest) == STREAK and within:
            break
    return tried


def best(tried: dict[int, Found], tolerance: float) -> dict[str, int | None]:
    """The smallest numbers that did; None where none of those tried does.

    Returns:
        first: its gap is below the tolerance, be it by chance;
        settled: so are those of all larger ones;
        map: its map is within the bar of the reference;
        both: its gap and its map are.
    """
    gaps = {n: gap <= tolerance for n, (gap, _error) in tried.items()}
    maps = {n: error <= BAR_ERROR for n, (_gap, error) in tried.items()}
    missed = max((n for n, reached in gaps.items() if not reached), default=0)
    return {
        "first": _smallest(gaps),
        "settled": _smallest({n: n > missed for n in tried}),
        "map": _smallest(maps),
        "both": _smallest({n: gaps[n] and maps[n] for n in tried}),
    }


def _smallest(which: dict[int, bool]) -> int | None:
    return next((n for n, does in which.items() if does), None)


def _counts(most: int) -> Iterator[int]:
    """All numbers up to half of the most, then every fourth."""
    yield from range(1, most // 2 + 1)
    yield from range(most // 2 + 4, most + 1, 4)


def _record(network: str, size: int, tolerance: float, steps: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    fixed = {kind: _median([one["fixed"][kind] for one in found]) for kind in ("first", "settled", "map", "both")}
    ours = {key: statistics.median(one["adaptive"][key] for one in found) for key in ("passes", "error", "seconds")}
    return {
        "case": f"{network}-{tolerance:g}",
        "network": network,
        "size": size,
        "tolerance": tolerance,
        "reference_steps": steps,
        "bars": {"passes": BAR_PASSES, "error": BAR_ERROR},
        "reached": sum(one["adaptive"]["gap"] <= tolerance for one in found),
        "medians": {**ours, "fixed": fixed},
        "photographs": found,
    }


def _median(counts: list[int | None]) -> float | None:
    """With those that were not found as larger than any; None where that is the median."""
    found = sorted(float("inf") if count is None else count for count in counts)
    middle = statistics.median(found)
    return None if middle == float("inf") else middle


def table(records: list[dict[str, Any]]) -> Table:
    """One line per tolerance."""
    columns = ("network", "tolerance", "passes", "fixed: first", "settled", "map", "gap and map", "error (bar)",
               "reached", "seconds")  # fmt: skip
    shown = Table(*columns, title="Integrated gradients: adaptive and fixed numbers of points, medians")
    for record in records:
        medians = record["medians"]
        shown.add_row(
            record["network"],
            f"{record['tolerance']:g}",
            f"{medians['passes']:g}",
            *("-" if count is None else f"{count:g}" for count in medians["fixed"].values()),
            f"{medians['error']:.3f} ({record['bars']['error']})",
            f"{record['reached']} of {len(record['photographs'])}",
            f"{medians['seconds']:.2g}",
        )
    return shown


if __name__ == "__main__":
    main()

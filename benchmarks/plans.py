"""Speed of Occlusion by local replay against our own dense plan and captum: see README.md.

    python benchmarks/plans.py --case resnet50 --json plans.json

Each case has a process of its own, in which the sides take turns. A ratio is that side's time per window over ours.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
import torch
from methods import CONSOLE, save
from rich.table import Table
from timing import peak, spread, timed
from torch import Tensor

import xai_fast as xf
from xai_fast.engine.samplers.windows import Windows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SWEEP = (1, 4, 8, 16, 32)  # captum's perturbations_per_eval; the first is its default
ERROR_STRIDE = 32  # of the maps that are compared with float64


@dataclass(frozen=True)
class Case:
    """Occlusion of one photograph.

    Attributes:
        network: a torchvision name, awakened.
        bar_dense: ratio over our dense plan that an issue asks for.
        bar_best: ratio over captum at its best setting; None where captum is not measured.
        size: side of the input.
        window, stride: of the windows, in pixels.
        part: stride at which the sides whose windows all cost the same are timed; their time is per window.
    """

    network: str
    bar_dense: float
    bar_best: float | None = None
    size: int = 224
    window: int = 15
    stride: int = 8
    part: int = 16


CASES = {
    "resnet18": Case("resnet18", 2.2, 4.0),
    "resnet50": Case("resnet50", 2.1, 3.6),
    "vgg16": Case("vgg16", 7.0, 12.0, part=32),
    "densenet121": Case("densenet121", 1.8),
    "mobilenet_v2": Case("mobilenet_v2", 1.7),
    "vgg16-448": Case("vgg16", 16.0, None, 448, 15, 32, 64),
}


def main() -> None:
    """Runs the chosen cases, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="in which every side is called once")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.rounds)))
        return
    records = []
    for name in arguments.case or CASES:
        command = [sys.executable, __file__, "--child", name, "--rounds", str(arguments.rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        records.append(json.loads(done.stdout.strip().splitlines()[-1]))
        CONSOLE.print(table(records[-1:]))
        if arguments.json:
            save(arguments.json, arguments.rounds, records)
    CONSOLE.print(table(records))


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Everything about one case, in this process."""
    from networks import awakened, photos

    case = CASES[name]
    model, x = awakened(case.network), photos(1, case.size)
    with torch.no_grad():
        target = model(x).argmax(1)
    engine = xf.Engine(copy.deepcopy(model), plan="local")
    ours = xf.Occlusion(engine, window=case.window, stride=case.stride)
    before, began = peak(), time.perf_counter()
    ours.attribute(x, target)
    first, growth = time.perf_counter() - began, peak() - before
    dense = xf.Occlusion(xf.Engine(copy.deepcopy(model), plan="dense"), window=case.window, stride=case.part)
    dense.attribute(x, target)
    sides: dict[str, tuple[Callable[[], Any], int]] = {
        # One more row each, the clean one.
        "local": (lambda: ours.attribute(x, target), windows(case, case.stride) + 1),
        "dense": (lambda: dense.attribute(x, target), windows(case, case.part) + 1),
    }
    best = None
    if case.bar_best is not None:
        peer = peers.captum_occlusion(case.part, case.part)  # its windows may not leave gaps; their size costs nothing
        calls = {setting: peer(copy.deepcopy(model), setting) for setting in SWEEP}
        found = {setting: timed(lambda call=call: call(x, target)) for setting, call in calls.items()}
        best = min(found, key=found.__getitem__)
        for side, setting in (("default", SWEEP[0]), ("best", best)):
            sides[side] = (lambda call=calls[setting]: call(x, target), (case.size // case.part) ** 2 + 1)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for side in order:
            call, count = sides[side]
            times[side].append(timed(call) / count)
    ratios = {side: statistics.median(values) / statistics.median(times["local"]) for side, values in times.items()}
    return {
        "case": name,
        "network": case.network,
        "size": case.size,
        "window": case.window,
        "stride": case.stride,
        "windows": windows(case, case.stride),
        "part": windows(case, case.part),
        "bars": {"dense": case.bar_dense, "best": case.bar_best},
        "best_setting": best,
        "ratios": ratios,
        "seconds": {side: spread(values) for side, values in times.items()},
        "errors": _errors(case, model, x, target),
        "first_seconds": first,
        "growth_bytes": growth,
        "plan": next(line for line in engine.explain_plan(ours, x).splitlines() if line.startswith("plan")),
    }


def windows(case: Case, stride: int) -> int:
    """How many windows a stride makes."""
    return len(Windows((3, case.size, case.size), (3, case.window, case.window), (3, stride, stride)))


def _errors(case: Case, model: torch.nn.Module, x: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    """Of both plans' float32 maps to float64, on a coarser grid; as shares of the largest value."""

    def occluded(engine: xf.Engine, inputs: Tensor) -> Tensor:
        return xf.Occlusion(engine, window=case.window, stride=max(ERROR_STRIDE, case.part)).attribute(inputs, target)

    truth = occluded(xf.Engine(copy.deepcopy(model).double(), plan="dense", batch_size=2), x.double())
    found = {}
    for plan in ("local", "dense"):
        error = (occluded(xf.Engine(copy.deepcopy(model), plan=plan), x) - truth) / truth.abs().max()
        found[plan] = {"max": error.abs().max().item(), "rms": error.square().mean().sqrt().item()}
    return found


def table(records: list[dict[str, Any]]) -> Table:
    """One line per case."""
    columns = ("case", "windows", "local ms", "dense ms", "over dense (bar)", "over captum's best (bar)", "its default",
               "first s", "growth MB", "rms error local / dense")  # fmt: skip
    shown = Table(*columns, title="Occlusion by local replay, per window")
    for record in records:
        seconds, ratios, bars, errors = (record[key] for key in ("seconds", "ratios", "bars", "errors"))
        shown.add_row(
            record["case"],
            str(record["windows"]),
            f"{seconds['local']['median'] * 1e3:.2f}",
            f"{seconds['dense']['median'] * 1e3:.2f}",
            f"{ratios['dense']:.2f}x ({bars['dense']})",
            f"{ratios['best']:.2f}x ({bars['best']}, at {record['best_setting']})" if "best" in ratios else "",
            f"{ratios['default']:.2f}x" if "default" in ratios else "",
            f"{record['first_seconds']:.1f}",
            f"{record['growth_bytes'] / 1e6:.0f}",
            f"{errors['local']['rms']:.1e} / {errors['dense']['rms']:.1e}",
        )
    return shown


if __name__ == "__main__":
    main()

"""What is asked of the compiled kernels: bandwidth beyond the cache, noise, shares of forwards; see README.md.

    python benchmarks/kernel_bars.py --json kernels.json       # about five minutes on two cores

Sides take turns, so that a busy machine slows all of them; beside each time stands how far the result is from the
reference's.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from batches import BATCH_BYTES, WRITING, arguments_of, rows_of
from kernels import distinct_bytes
from methods import CONSOLE, save
from rich.table import Table
from timing import spread, timed
from torch import Tensor

from xai_fast import ops
from xai_fast.ops import cell_extent

for _folder in ("tests", "tests/ops"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / _folder))

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BARS = {"of_copy": 0.8, "times_normal": 4.0, "of_forward": 0.02, "times_reference": 1.0}
FEWER = 16  # of rows for the references, which loop over them in Python


def main() -> None:
    """Measures, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", choices=[*WRITING, *FOLDING], help="repeatable; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=BATCH_BYTES >> 20, help="of a batch, for trying things out")
    parser.add_argument("--size", type=int, default=224, help="of the photograph, for trying things out")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    arguments = parser.parse_args()
    chosen, records = arguments.op or [*WRITING, *FOLDING], []
    for name, dtype, layout in itertools.product(WRITING, DTYPES, ("NHWC", "NCHW")):
        if name in chosen:
            records.append(written(name, dtype, layout, arguments.megabytes << 20, arguments.rounds))
            CONSOLE.print(f"{name}, {dtype}, {layout}")
    if folding := [name for name in FOLDING if name in chosen]:
        per_row = forward(arguments.size, arguments.rounds)
        records += [folded(name, per_row, arguments.size, arguments.rounds) for name in folding]
    if arguments.json:
        save(arguments.json, arguments.rounds, records)
    CONSOLE.print(table(records))


def written(name: str, dtype: str, layout: str, size: int, rounds: int) -> dict[str, Any]:
    """An op that writes a batch, beside a copy that moves as many bytes, and beside the reference on fewer rows."""
    from ops_support import tolerance

    kind = DTYPES[dtype]
    many = arguments_of(name, kind, layout, rows_of(name, kind, size), 224)
    few = arguments_of(name, kind, layout, FEWER, 224)
    traffic = sum(distinct_bytes(value) for value in many.values())
    source = torch.zeros(traffic // 2, dtype=torch.uint8)
    target = torch.zeros_like(source)
    function = getattr(ops, name)
    sides: dict[str, Callable[[], Any]] = {
        "kernel": lambda: function(**many),
        "copy": lambda: target.copy_(source),
        "reference": _forced("reference", function, few),
        "kernel_few": _forced("cpp", function, few),
    }
    drawn = torch.empty_like(many["out"])
    if name == "add_noise":
        sides["normal"] = drawn.normal_
    expected = _forced("reference", function, few)().clone()
    off = (_forced("cpp", function, few)().double() - expected.double()).abs().max().item()
    medians, seconds = _turns(sides, rounds)
    return {
        **{"op": name, "dtype": dtype, "layout": layout, "bytes": traffic, "seconds": seconds, "off": off},
        **{"allowed": tolerance(name, few, kind), "gigabytes_per_second": traffic / medians["kernel"] / 1e9},
        "of_copy": medians["copy"] / medians["kernel"],
        "times_normal": medians["normal"] / medians["kernel"] if name == "add_noise" else None,
        "times_reference": medians["reference"] / medians["kernel_few"],
        "of_forward": None,
    }


def _windows(size: int) -> tuple[Any, int]:
    count = max((size - 15) // 8 + 1, 1)
    start = torch.cartesian_prod(*[torch.arange(count) * 8] * 2)
    boxes = torch.stack([start, start + 15], 2)
    boxes = torch.cat([torch.tensor([[0, 1]]).expand(len(start), 1, 2), boxes], 1)
    values = torch.randn(1, len(start), 1)
    return lambda: ops.window_mean(values, boxes, (1, size, size)), len(start)


def _grids(size: int) -> tuple[Any, int]:
    positions, rows = cell_extent(size, 7), 1000
    grids, weights = torch.rand(rows, 7, 7) < 0.5, torch.randn(rows, 1).double()
    shifts = torch.randint(0, positions, (rows, 2))

    def run() -> Tensor:
        return ops.grid_reduce(grids, shifts, weights, torch.zeros(positions, positions, 1, 7, 7).double())

    return run, rows


def _maps(size: int) -> tuple[Any, int]:
    activations, weights = torch.randn(1, 2048, 7, 7), torch.randn(1, 1, 2048)
    return lambda: ops.cam_reduce(activations, weights, size=(size, size)), 1


def _sums(size: int) -> tuple[Any, int]:
    values, group = torch.randn(50, 3, size, size), torch.zeros(50).long()

    def run() -> Tensor:
        total, squares = torch.zeros(2, 1, 3, size, size, dtype=torch.float64)
        ops.moments(values, None, group, total, squares)
        return torch.stack([total, squares])

    return run, 50


def _products(_size: int) -> tuple[Any, int]:
    keep, weights, scores = torch.rand(1000, 50) < 0.5, torch.rand(1000).double(), torch.randn(1000, 1).double()

    def run() -> Tensor:
        sums = torch.zeros(51, 51).double(), torch.zeros(51, 1).double()
        return torch.cat(ops.surrogate_normal(keep, weights, scores, *sums), 1)

    return run, 1000


# What folds the answers of how many rows: of Occlusion, RISE, GradCAM, SmoothGrad and LIME.
FOLDING: dict[str, Callable[[int], tuple[Any, int]]] = {
    "window_mean": _windows,
    "grid_reduce": _grids,
    "cam_reduce": _maps,
    "moments": _sums,
    "surrogate_normal": _products,
}


def forward(size: int, rounds: int) -> float:
    """Seconds per row of the fastest network that is compared anywhere here: ResNet-18, prepared."""
    from networks import awakened, photos

    import xai_fast as xf

    x = photos(8, size)
    prepared = xf.Engine(copy.deepcopy(awakened("resnet18")), plan="dense", prepare=True).prepared(frozenset(), x)
    batch = prepared.empty(len(x), x).copy_(x)
    with torch.no_grad():
        medians, _ = _turns({"forward": lambda: prepared(batch)}, rounds)
    return medians["forward"] / len(x)


def folded(name: str, per_row: float, size: int, rounds: int) -> dict[str, Any]:
    """An op that reduces, beside the forwards whose answers it folds, and beside the reference."""
    torch.manual_seed(0)
    run, rows = FOLDING[name](size)
    sides = {"kernel": _forced("cpp", run, {}), "reference": _forced("reference", run, {})}
    actual, expected = sides["kernel"]().double(), sides["reference"]().double()
    medians, seconds = _turns(sides, rounds)
    return {
        **{"op": name, "dtype": "float32", "layout": "", "bytes": 0, "seconds": seconds, "rows": rows},
        **{"off": ((actual - expected).abs().max() / expected.abs().max()).item(), "allowed": 1e-5},
        **{"gigabytes_per_second": 0.0, "of_copy": None, "times_normal": None},
        "times_reference": medians["reference"] / medians["kernel"],
        "of_forward": medians["kernel"] / (rows * per_row),
    }


def _forced(backend: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Callable[[], Any]:
    def run() -> Any:
        with ops.using(backend):
            return function(**arguments)

    return run


def _turns(sides: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    for run in sides.values():
        run()
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, run in sides.items():
            times[side].append(timed(run))
    seconds = {side: spread(values) for side, values in times.items()}
    return {side: values["median"] for side, values in seconds.items()}, seconds


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them, what misses a bar marked."""
    made = Table("op", "dtype", "layout", "ms", "GB/s", *(f"{key} (bar {bar:g})" for key, bar in BARS.items()), "off")
    for record in records:
        cells = []
        for key, bar in BARS.items():
            value = record[key]
            asked = value is not None and not (key == "of_copy" and record["op"] == "add_noise")  # it has its own bar
            missed = asked and (value > bar if key == "of_forward" else value < bar)
            cells.append("" if value is None else f"{value:.3g}" + (" !" if missed else ""))
        kernel = record["seconds"]["kernel"]["median"] * 1e3
        rate = f"{record['gigabytes_per_second']:.1f}" if record["bytes"] else ""
        made.add_row(
            record["op"], record["dtype"], record["layout"], f"{kernel:.3g}", rate, *cells, f"{record['off']:.0e}"
        )
    return made


if __name__ == "__main__":
    main()

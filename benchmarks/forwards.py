"""Speed of the prepared dense forward against eager ones, torch.compile and other engines: see README.md.

    python benchmarks/forwards.py --network resnet50 --engines --json forwards.json

Each network has a process of its own, in which the sides take turns. A ratio is that side's time over ours.
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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from engines import ENGINES
from methods import CONSOLE, save
from rich.table import Table
from timing import spread
from torch import Tensor, nn

import xai_fast as xf
from xai_fast.core import verify

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Network:
    """A torchvision network, and what an issue asks of its prepared forward.

    Attributes:
        bar: ratio over the folded eager forward.
        bar_compiled: ratio over `torch.compile` with freezing; None where nothing is asked for.
        convolutional: the eager reference is laid out channels-last.
        folds: it has batch normalisations behind convolutions, which the eager reference has folded.
    """

    bar: float
    bar_compiled: float | None = None
    convolutional: bool = True
    folds: bool = True


NETWORKS = {
    "resnet50": Network(1.05),
    "vgg16": Network(1.1, folds=False),
    "vit_b_16": Network(1.6, 1.5, convolutional=False, folds=False),
    "resnet18": Network(0.97),
    "densenet121": Network(0.97),
    "mobilenet_v2": Network(0.97),
    "mobilenet_v3_large": Network(0.97),
    "convnext_tiny": Network(0.97, folds=False),
    "swin_t": Network(0.97, convolutional=False, folds=False),
    "efficientnet_b0": Network(0.97),
}
_SETTLING = 6  # calls before other engines are there, whose threads would disturb what is timed once to choose by
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def main() -> None:
    """Runs the chosen networks, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: all")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=11, help="in which every side is called once")
    parser.add_argument("--size", type=int, default=224, help="side of the input, for trying things out")
    parser.add_argument(
        "--compile", choices=["bars", "all", "none"], default="bars", help="default: where a bar is over torch.compile"
    )
    parser.add_argument("--engines", action="store_true", help='beside mode="fast", onnxruntime and OpenVINO')
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        record = measure(
            arguments.child,
            arguments.rows,
            arguments.size,
            arguments.rounds,
            arguments.compile,
            engines=arguments.engines,
        )
        print(json.dumps(record))
        return
    records = []
    for name in arguments.network or NETWORKS:
        records.append(_child(name, arguments))
        CONSOLE.print(table(records[-1:]))
        if arguments.json:
            save(arguments.json, arguments.rounds, records)
    CONSOLE.print(table(records))


def measure(name: str, rows: int, size: int, rounds: int, compiling: str, *, engines: bool = False) -> dict[str, Any]:
    """Everything about one network, in this process."""
    from networks import awakened, photos

    network = NETWORKS[name]
    model, x = awakened(name), photos(rows, size)
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(x.double())
    sides: dict[str, Forward] = {}
    modes, firsts = {"prepared": "no_grad"}, dict[str, float]()
    engine = xf.Engine(copy.deepcopy(model), plan="dense")
    prepared = engine.prepared(frozenset(), x)
    batch = prepared.empty(rows, x).copy_(x)
    sides["prepared"] = _within("no_grad", lambda: prepared(batch))
    began = time.perf_counter()
    sides["prepared"]()
    firsts["prepared"] = time.perf_counter() - began
    for _ in range(_SETTLING):
        sides["prepared"]()
    layout = torch.channels_last if network.convolutional else torch.contiguous_format
    eager = _folded(model) if network.folds else copy.deepcopy(model)
    eager, laid_out = eager.to(memory_format=layout), x.to(memory_format=layout)
    modes["folded"], sides["folded"] = _faster(lambda: eager(laid_out))
    if network.folds or network.convolutional:
        modes["plain"], sides["plain"] = _faster(lambda: model(x))
    if compiling == "all" or (compiling == "bars" and network.bar_compiled is not None):
        frozen = _compiled(model, layout)
        modes["compiled"], sides["compiled"] = "no_grad", _within("no_grad", lambda: frozen(laid_out))
    dtypes = {}
    if engines:
        modes["fast"] = "no_grad"
        dtypes["fast"], sides["fast"] = _fast(model, x)
        for side, make in ENGINES.items():
            modes[side], sides[side] = "its own", make(model, x)
    errors = {}
    for side, forward in sides.items():  # also the first call of those that have not run yet
        began = time.perf_counter()
        output = forward()
        firsts.setdefault(side, time.perf_counter() - began)
        errors[side] = ((output.double() - truth).abs().max() / truth.abs().max()).item()
        forward()
    times = _interleaved(sides, rounds, settles=engines)
    if "plain" not in times:  # nothing to fold and no layout to choose: the reference is the plain network
        modes["plain"], errors["plain"], times["plain"] = modes["folded"], errors["folded"], times["folded"]
    medians = {side: statistics.median(values) for side, values in times.items()}
    return {
        "network": name,
        "rows": rows,
        "size": size,
        "bar": network.bar,
        "bar_compiled": network.bar_compiled,
        "ratios": {side: median / medians["prepared"] for side, median in medians.items() if side != "prepared"},
        "seconds": {side: spread(values) for side, values in times.items()},
        "errors": errors,
        "modes": modes,
        "dtypes": dtypes,
        "first_seconds": firsts,
        "preparation_seconds": prepared.seconds,
    }


def _fast(model: nn.Module, x: Tensor) -> tuple[str, Forward]:
    """In mode="fast": the dtype that it computes in, and the forward.

    Random weights exaggerate rounding, so that bfloat16 would be refused on some networks, where errors of all engines
    are the same. Here it is let through, and the error stands beside the time.
    """
    before = dict(verify.TOLERANCE)
    verify.TOLERANCE[torch.bfloat16] = 1.0
    try:
        engine = xf.Engine(copy.deepcopy(model), plan="dense", mode="fast", prepare=True)
        prepared = engine.prepared(frozenset(), x)
    finally:
        verify.TOLERANCE.update(before)
    batch = prepared.empty(len(x), x).copy_(x)
    return str(prepared.dtype).removeprefix("torch."), _within("no_grad", lambda: prepared(batch))


def _folded(model: nn.Module) -> nn.Module:
    """The model with batch normalisations folded into the convolutions before them, by torch's own transformation."""
    from torch.fx.experimental.optimization import fuse

    return fuse(copy.deepcopy(model))


def _compiled(model: nn.Module, layout: torch.memory_format) -> Callable[[Tensor], Tensor]:
    """Compiled with its weights as constants, which lets it fold and prepack them; compiles at the first call."""
    from torch._inductor import config

    config.freezing = True
    return torch.compile(copy.deepcopy(model).to(memory_format=layout))


def _within(mode: str, forward: Forward) -> Forward:
    def run() -> Tensor:
        with MODES[mode]():
            return forward()

    return run


def _faster(forward: Forward) -> tuple[str, Forward]:
    """The forward in whichever mode without gradients suits it better, of three warm calls each, in turns."""
    modes = {mode: _within(mode, forward) for mode in MODES}
    for run in modes.values():
        run()
    times = _interleaved(modes, 3)
    best = min(times, key=lambda mode: min(times[mode]))
    return best, modes[best]


def _interleaved(sides: dict[str, Forward], rounds: int, *, settles: bool = False) -> dict[str, list[float]]:
    """Seconds of each side, one call a round; the order turns, so that nobody always follows the same neighbour.

    Where it `settles`, the second of two calls is timed: threads of another engine keep spinning for a while.
    """
    times: dict[str, list[float]] = {side: [] for side in sides}
    order = list(sides)
    for _ in range(rounds):
        for side in order:
            if settles:
                sides[side]()
            began = time.perf_counter()
            sides[side]()
            times[side].append(time.perf_counter() - began)
        order = order[::-1] if len(order) == 2 else order[1:] + order[:1]
    return times


def _child(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    options = {option: str(getattr(arguments, option)) for option in ("rows", "rounds", "size", "compile")}
    command = [sys.executable, __file__, "--child", name, *(f"--{key}={value}" for key, value in options.items())]
    command += ["--engines"] if arguments.engines else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them, a line per network and side: a ratio is its time over the prepared one's."""
    made = Table("network", "side", "ms a row", "IQR", "ratio", "bar", "error", "first call")
    for record in records:
        bars = {"folded": record["bar"], "compiled": record["bar_compiled"]}
        for side, seconds in sorted(record["seconds"].items(), key=lambda item: item[1]["median"]):
            dtype, bar = record["dtypes"].get(side), bars.get(side)
            made.add_row(
                record["network"],
                f"{side} ({dtype})" if dtype else side,
                f"{seconds['median'] / record['rows'] * 1e3:.2f}",
                f"{seconds['iqr'] / record['rows'] * 1e3:.2f}",
                f"{record['ratios'].get(side, 1.0):.3f}x",
                f"{bar:g}x" if bar else "",
                f"{record['errors'][side]:.0e}",
                f"{record['first_seconds'][side]:.2f} s" if side in record["first_seconds"] else "",
            )
        made.add_section()
    return made


if __name__ == "__main__":
    main()

"""The first call on a model, as one photograph meets it, against the reference library's own first call: see README.md.

    python benchmarks/first_calls.py --network resnet50 --case GradCAM --json first-calls.json

Every call has a process of its own, libraries and model loaded before the clock starts; sides take turns. `cpu` is the
processor's time of the whole process, which other programs on the machine disturb least; `wall` is the clock's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from methods import CONSOLE, save
from rich.table import Table
from torch import Tensor, nn

import xai_fast as xf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

NETWORKS = ("resnet18", "resnet50", "vit_b_16")
TARGET = 3
# What a first call may take, in times of the library's.
BARS = {"GradCAM": 1.3, "Saliency": 1.05, "IntegratedGradients": 1.05, "Occlusion": 1.05}
SIDES = ("ours", "peer")
Call = Callable[[], Any]


def main() -> None:
    """Runs the chosen cases, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=BARS, help="default: all")
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: all")
    parser.add_argument("--size", type=int, default=224, help="side of the photograph, for trying things out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "CASE", "NETWORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, case, network = arguments.child
        print(json.dumps(measure(side, case, network, arguments.size)))
        return
    records = []
    for network in arguments.network or NETWORKS:
        for case in arguments.case or BARS:
            records.append(compare(case, network, arguments.size, arguments.rounds))
            if arguments.json:
                save(arguments.json, arguments.rounds, records)
    CONSOLE.print(table(records))


def compare(case: str, network: str, size: int, rounds: int) -> dict[str, Any]:
    """Both sides of one case, in turns, each call in a fresh process."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            command = [sys.executable, __file__, "--child", side, case, network, f"--size={size}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
    seconds = {
        clock: {side: spread([one[clock] for one in calls]) for side, calls in found.items()}
        for clock in ("cpu", "wall")
    }
    ours, peer = found["ours"][0]["map"], found["peer"][0]["map"]
    return {
        "first_call": case,
        "network": network,
        "size": size,
        "bar": BARS[case],
        "tier": found["ours"][0]["tier"],
        "ratios": {clock: sides["ours"]["median"] / sides["peer"]["median"] for clock, sides in seconds.items()},
        "seconds": seconds,
        # torchcam knows no tokens, and what it returns for a transformer is no map.
        "difference": largest_difference(ours, peer) if len(ours) == len(peer) else None,
    }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and interquartile range."""
    if len(seconds) < 2:
        return {"median": seconds[0], "iqr": 0.0}
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": statistics.median(seconds), "iqr": high - low}


def largest_difference(ours: list[float], peer: list[float]) -> float:
    """Of two maps, each scaled to a largest value of 1, since libraries scale differently."""
    one, other = (torch.tensor(values, dtype=torch.float64) for values in (ours, peer))
    return float((one / one.abs().max() - other / other.abs().max()).abs().max())


def measure(side: str, case: str, network: str, size: int) -> dict[str, Any]:
    """The first call of one side, in this process."""
    from networks import awakened

    model = awakened(network)
    photograph = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    call, method = (_ours if side == "ours" else _peer)(case, model, photograph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cpu, wall = time.process_time(), time.perf_counter()
        values = call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tier = ""
    if method is not None and "tier" in method.engine.decisions.entries:
        tier = next(iter(method.engine.decisions.entries["tier"].values()))
    return {"cpu": cpu, "wall": wall, "map": values.flatten()[:: max(1, values.numel() // 500)].tolist(), "tier": tier}


def _ours(case: str, model: nn.Module, x: Tensor) -> tuple[Call, Any]:
    settings = {"IntegratedGradients": {"n_steps": 10}, "Occlusion": {"window": 32, "stride": 32}}.get(case, {})
    if case == "GradCAM":
        native = xf.GradCAM(model)
        return lambda: native.attribute(x, TARGET, resolution="native"), native
    method = getattr(xf, case)(model, **settings)
    return lambda: method.attribute(x, TARGET), method


def _peer(case: str, model: nn.Module, x: Tensor) -> tuple[Call, Any]:
    if case == "GradCAM":
        from torchcam.methods import GradCAM

        vit = hasattr(model, "encoder")

        def cam() -> Tensor:
            # torchcam finds a layer of convolutional networks, and knows no tokens: of a transformer only time counts.
            with GradCAM(model, "encoder.layers.encoder_layer_11.ln_1" if vit else None) as extractor:
                scores = model(x)
                return extractor(TARGET, scores)[0]

        return cam, None
    from captum import attr

    method = getattr(attr, case)(model)
    window = {"sliding_window_shapes": (3, 32, 32), "strides": (3, 32, 32)}
    settings = {"IntegratedGradients": {"n_steps": 10}, "Occlusion": window}.get(case, {})
    channels = slice(1) if case == "Occlusion" else slice(None)  # all channels of a window have its value
    return lambda: method.attribute(x, target=TARGET, **settings)[:, channels], None


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them."""
    made = Table("network", "first call", "tier", "ours, CPU s", "peer, CPU s", "ratio", "by the clock", "bar", "apart")
    for record in records:
        cpu = record["seconds"]["cpu"]
        made.add_row(
            record["network"],
            record["first_call"],
            record["tier"],
            f"{cpu['ours']['median']:.3f}",
            f"{cpu['peer']['median']:.3f}",
            f"{record['ratios']['cpu']:.2f}",
            f"{record['ratios']['wall']:.2f}",
            f"{record['bar']}",
            "no map" if record["difference"] is None else f"{record['difference']:.0e}",
        )
    return made


if __name__ == "__main__":
    main()

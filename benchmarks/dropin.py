"""Scripts that know nothing of us, run as they are and under `python -m xai_fast.accelerate`: see README.md.

    python -m benchmarks.dropin --case captum_occlusion --json benchmarks/results/0.1.0/dropin--NAME.json

The scripts stand in `scripts/`. A case that is there already in the JSON file is measured anew and takes its place.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from methods import CONSOLE, save
from timing import spread

from xai_fast import accelerate

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "scripts"
SIDES = ("plain", "accelerated")
SMALL = 64  # pixels a side, of the comparison with float64


@dataclass(frozen=True)
class Script:
    """A script, and what is asked of it.

    Attributes:
        name: of its file.
        library: that it uses, as it is imported.
        bar: how many times as fast it should run accelerated.
        once: a whole process, from its start to its end, which explains one photograph once.
    """

    name: str
    library: str
    bar: float
    once: bool = False


CASES = (
    Script("captum_occlusion", "captum.attr", 3.5),
    Script("captum_integrated_gradients", "captum.attr", 2.5),
    Script("captum_noise_tunnel", "captum.attr", 2.3),
    Script("captum_feature_ablation", "captum.attr", 2.5),
    Script("captum_kernel_shap", "captum.attr", 1.3),
    Script("captum_once", "captum.attr", 1.0, once=True),
    Script("gradcam_ablation_cam", "pytorch_grad_cam", 1000.0),
    Script("gradcam_eigen_cam", "pytorch_grad_cam", 5.0),
    Script("gradcam_full_grad", "pytorch_grad_cam", 12.0),
    Script("gradcam_score_cam", "pytorch_grad_cam", 1.3),
    Script("gradcam_once", "pytorch_grad_cam", 1.0, once=True),
    Script("torchcam_score_cam", "torchcam.methods", 1.3),
    Script("shap_gradient", "shap", 5.0),
    Script("shap_partition", "shap", 3.0),
    Script("lime_image", "lime.lime_image", 1.3),
    Script("lime_opaque", "lime.lime_image", 20.0),
)


def main() -> None:
    """Runs the chosen scripts, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--network", default="resnet50", help="a ResNet of torchvision, awakened")
    parser.add_argument("--size", type=int, default=224, help="side of the photograph in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side, where they do not take too long")
    parser.add_argument("--seconds", type=float, default=100.0, help="after which a side is not run again")
    parser.add_argument("--json", type=Path, help="add the records to this file")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "CASE"), help=argparse.SUPPRESS)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        what, name = asked.child
        case = next(case for case in CASES if case.name == name)
        measure = {"warm": warm, "error": error}[what]
        print(json.dumps(measure(case, asked)))
        return
    records = []
    with tempfile.TemporaryDirectory() as folder:
        asked.inputs = made_inputs(Path(folder), asked.network, asked.size)
        for case in CASES:
            if asked.case is None or case.name in asked.case:
                began = time.perf_counter()
                records.append(once(case, asked) if case.once else compared(case, asked))
                CONSOLE.print(f"{case.name}: measured in {time.perf_counter() - began:.0f} s")
                if asked.json:
                    merge(asked.json, asked.rounds, records)
    CONSOLE.print(table(records))
    for record in records:
        CONSOLE.print(f"{record['dropin']}: {'; '.join(record['report']) or 'nothing was counted'}", highlight=False)


def made_inputs(folder: Path, network: str, size: int) -> Path:
    """Writes an awakened network's weights, and photographs, for the scripts to read."""
    from networks import awakened

    from xai_fast.models.demo import photographs

    torch.save(awakened(network).state_dict(), folder / "weights.pt")
    (folder / "photographs").mkdir()
    for number, photo in enumerate(photographs()):
        picture = photo.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        picture.save(folder / "photographs" / f"{number:02d}.png")
    return folder


def command(case: Script, asked: argparse.Namespace, *more: str) -> list[str]:
    """The script and its arguments."""
    files = (f"--weights={asked.inputs / 'weights.pt'}", f"--photographs={asked.inputs / 'photographs'}")
    return [str(SCRIPTS / f"{case.name}.py"), f"--network={asked.network}", *files, f"--size={asked.size}", *more]


def compared(case: Script, asked: argparse.Namespace) -> dict[str, Any]:
    """Both sides of a script, in turns in one process, and how far both are from float64."""
    found = child("warm", case, asked)
    return {**found, "error": child("error", case, asked)}


def child(what: str, case: Script, asked: argparse.Namespace) -> dict[str, Any]:
    """What a fresh process measured."""
    options = [f"--{name}={getattr(asked, name)}" for name in ("network", "size", "rounds", "seconds", "inputs")]
    started = [sys.executable, __file__, "--child", what, case.name, *options]
    done = subprocess.run(started, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def warm(case: Script, asked: argparse.Namespace) -> dict[str, Any]:
    """The script again and again in this process, plain and accelerated in turns; the first run of each stands apart.

    A side that takes long is run as often as `--seconds` allow, and where that is once, its first run is its only one.
    """
    importlib.import_module(case.library)
    loaded(case, asked)
    accelerate.reset()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    values: dict[str, np.ndarray] = {}
    for number in range(asked.rounds + 1):
        for side in SIDES if number % 2 else SIDES[::-1]:
            if sum(seconds[side]) < asked.seconds / 2 or (side == "accelerated" and number < 2):
                took, values[side] = ran(case, asked, side)
                seconds[side].append(took)
    later = {side: taken[1:] or taken for side, taken in seconds.items()}
    rounds = {side: spread(taken) for side, taken in later.items()}
    return {
        **described(case, asked),
        "rounds": {side: len(taken) for side, taken in later.items()},
        "seconds": rounds,
        "first": {side: taken[0] for side, taken in seconds.items()},
        "ratio": rounds["plain"]["median"] / rounds["accelerated"]["median"],
        "ratio_first": seconds["plain"][0] / seconds["accelerated"][0],
        "difference": apart(values["accelerated"], values["plain"])["max"],
        **counted(),
    }


def error(case: Script, asked: argparse.Namespace) -> dict[str, Any]:
    """How far both sides are from the library's own result of a small photograph in float64."""
    asked.size = SMALL
    loaded(case, asked)
    _, truth = ran(case, asked, "plain", "--double")
    found = {side: ran(case, asked, side)[1] for side in SIDES}
    return {
        "size": SMALL,
        "ours": apart(found["accelerated"], truth),
        "peer": apart(found["plain"], truth),
    }


def once(case: Script, asked: argparse.Namespace) -> dict[str, Any]:
    """Whole processes, from start to end, in turns."""
    seconds: dict[str, dict[str, list[float]]] = {clock: {side: [] for side in SIDES} for clock in ("cpu", "wall")}
    values, said = {}, ""
    for number in range(asked.rounds + 1):  # the first of each side fills the caches of files, and does not count
        for side in SIDES if number % 2 else SIDES[::-1]:
            out = asked.inputs / f"{side}.npy"
            program = ["-m", "xai_fast.accelerate", "--report"] if side == "accelerated" else []
            started = [sys.executable, *program, *command(case, asked, f"--out={out}")]
            before, began = os.times(), time.perf_counter()
            done = subprocess.run(started, stderr=subprocess.PIPE, text=True, check=True, env=environment())
            wall, after = time.perf_counter() - began, os.times()
            if number:
                seconds["wall"][side].append(wall)
                cpu = after.children_user + after.children_system - before.children_user - before.children_system
                seconds["cpu"][side].append(cpu)
            values[side] = np.load(out)
            said = done.stderr if side == "accelerated" else said
    rounds = {clock: {side: spread(taken) for side, taken in sides.items()} for clock, sides in seconds.items()}
    ratios = {clock: sides["plain"]["median"] / sides["accelerated"]["median"] for clock, sides in rounds.items()}
    lines = said[said.index("xai_fast: ") :].strip().splitlines()
    counts = [int(word) for word in lines[0].replace(",", "").split() if word.isdigit()]
    return {
        **described(case, asked),
        "rounds": dict.fromkeys(SIDES, asked.rounds),
        "seconds": rounds["wall"],
        "cpu": rounds["cpu"],
        "ratio": ratios["wall"],
        "ratio_cpu": ratios["cpu"],
        "difference": apart(values["accelerated"], values["plain"])["max"],
        "error": None,
        "accelerated": counts[0],
        "passed_on": counts[1],
        "report": [" ".join(line.split()) for line in lines[1:]],
    }


def described(case: Script, asked: argparse.Namespace) -> dict[str, Any]:
    """What was run."""
    return {
        "dropin": case.name,
        "of": case.library.partition(".")[0],
        "network": asked.network,
        "size": asked.size,
        "bar": case.bar,
        "once": case.once,
    }


def environment() -> dict[str, str]:
    """With this project where a process of its own finds it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}


def loaded(case: Script, asked: argparse.Namespace) -> None:
    """Reads the network, which is no part of what is measured; it stays for all runs of this process."""
    sys.path.insert(0, str(SCRIPTS))
    sys.argv = command(case, asked)
    importlib.import_module("subject").network()


def ran(case: Script, asked: argparse.Namespace, side: str, *more: str) -> tuple[float, np.ndarray]:
    """Seconds of one run of the script in this process, and what it kept."""
    out = asked.inputs / "result.npy"
    sys.argv = command(case, asked, f"--out={out}", *more)
    on = accelerate.accelerate() if side == "accelerated" else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            runpy.run_path(sys.argv[0], run_name="__main__")
            took = time.perf_counter() - began
    finally:
        if on is not None:
            accelerate.off()
    return took, np.load(out)


def apart(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The largest and the RMS difference, as shares of the largest value."""
    if found.shape != truth.shape:
        raise ValueError(f"results of {found.shape} and {truth.shape} cannot be compared")
    difference = (found.astype(np.float64) - truth) / np.abs(truth).max()
    return {"max": float(np.abs(difference).max()), "rms": float(np.sqrt(np.square(difference).mean()))}


def counted() -> dict[str, Any]:
    """What ran on our engine."""
    report = accelerate.report()
    lines = [
        f"{row.method}: {row.calls} {f'passed on: {row.reason}' if row.reason else 'accelerated'}"
        + (f" ({row.note})" if row.note else "")
        for row in report.rows
    ]
    return {"accelerated": report.accelerated, "passed_on": report.passed_on, "report": lines}


def merge(file: Path, rounds: int, records: Sequence[dict[str, Any]]) -> None:
    """Puts the records into a file, in place of those of the same scripts."""
    before = json.loads(file.read_text())["records"] if file.exists() else []
    by_name = {record["dropin"]: record for record in (*before, *records)}
    save(file, rounds, [by_name[case.name] for case in CASES if case.name in by_name])


def table(records: Sequence[dict[str, Any]]) -> Table:
    """The records as a person reads them."""
    made = Table(
        *("script", "plain, s", "accelerated, s", "ratio", "bar", "first run", "on our engine", "apart"),
        *("our error", "its error"),
    )
    for record in records:
        errors = record["error"]
        made.add_row(
            record["dropin"],
            *(f"{record['seconds'][side]['median']:.4g}" for side in SIDES),
            f"{record['ratio']:.2f}",
            f"{record['bar']:g}",
            f"{record['ratio_first']:.2f}" if "ratio_first" in record else f"{record['ratio_cpu']:.2f} by CPU",
            f"{record['accelerated']} of {record['accelerated'] + record['passed_on']}",
            f"{record['difference']:.0e}",
            *(f"{errors[side]['rms']:.0e}" if errors else "" for side in ("ours", "peer")),
        )
    return made


if __name__ == "__main__":
    main()

"""How much a process grows by what is prepared: for many layers, for many shapes, and in packed weights: see README.md.

    python benchmarks/memory.py --case layers --json memory.json

Each case has a process of its own. Growth is what the process holds in memory beyond the first call of its kind. Beside
the methods stands the model by itself, forward and backward in plain torch: what libraries and allocator keep anyway.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from methods import CONSOLE, save
from rich.table import Table

import xai_fast as xf
from xai_fast.core.sharing import held

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

NETWORK = "resnet18"
LAYERS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
LAYERS += [f"layer{stage}.0.conv1" for stage in (1, 2, 3, 4)]
_MB = 1e6


def main() -> None:
    """Runs the chosen cases, prints a table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--shapes", type=int, default=100, help="how many, for trying things out")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.shapes)))
        return
    records = []
    for name in arguments.case or CASES:
        command = [sys.executable, __file__, "--child", name, f"--shapes={arguments.shapes}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        records.append(json.loads(done.stdout.strip().splitlines()[-1]))
        if arguments.json:
            save(arguments.json, 1, records)
    CONSOLE.print(table(records))


def measure(name: str, shapes: int) -> dict[str, Any]:
    """Everything about one case, in this process."""
    from networks import awakened

    model = awakened(NETWORK)
    calls, bar = CASES[name]
    steps = calls(xf.Engine(model, prepare=True), shapes)
    next(steps)  # what every call needs, libraries included
    before = _resident()
    count = sum(1 for _ in steps)
    growth = _resident() - before
    weights, packed = sum(parameter.nbytes for parameter in model.parameters()), _packed()
    return {
        "memory": name,
        "network": NETWORK,
        "calls": count,
        "growth_bytes": growth,
        "bar_bytes": None if bar is None else int(bar * _MB),
        "weights_bytes": weights,
        "packed_bytes": packed,
    }


def _layers(engine: xf.Engine, shapes: int) -> Iterator[None]:
    for layer in ("layer4", *LAYERS):
        xf.GradCAM(engine, layer=layer).attribute(_picture(224), 1)
        yield


def _shapes(method: str) -> Callable[[xf.Engine, int], Iterator[None]]:
    def calls(engine: xf.Engine, shapes: int) -> Iterator[None]:
        made = xf.GradCAM(engine, layer="layer4") if method == "GradCAM" else xf.Saliency(engine)
        for number in range(shapes + 1):
            made.attribute(_picture(64 + 2 * number), 1)
            yield

    return calls


def _alone(engine: xf.Engine, shapes: int) -> Iterator[None]:
    model = engine.model
    assert isinstance(model, torch.nn.Module)
    model.requires_grad_(False)
    for number in range(shapes + 1):
        inputs = _picture(64 + 2 * number).requires_grad_()
        model(inputs)[0, 1].backward()
        yield


CASES: dict[str, tuple[Callable[[xf.Engine, int], Iterator[None]], float | None]] = {
    "GradCAM at twelve layers": (_layers, 150),
    "GradCAM at many shapes": (_shapes("GradCAM"), 150),
    "Saliency at many shapes": (_shapes("Saliency"), 150),
    "the model alone at many shapes": (_alone, None),
}


def _picture(size: int) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size))


def _resident() -> int:
    """Bytes of this process that are in memory, once nothing waits for the collector."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _packed() -> int:
    """Bytes of everything that is made of weights, forward and backward, beside the weights themselves."""
    from xai_fast.graph.fused.shared import living

    sources = list(living())
    own = held([source.weight for source in sources], [source.bias for source in sources])
    return sum(size for place, size in held(sources).items() if place not in own)


def table(records: list[dict[str, Any]]) -> Table:
    """The records as a person reads them."""
    made = Table("case", "calls", "growth", "bar", "packed", "weights")
    for record in records:
        keys = ("growth_bytes", "bar_bytes", "packed_bytes", "weights_bytes")
        cells = ("–" if record[key] is None else f"{record[key] / _MB:.0f} MB" for key in keys)
        made.add_row(record["memory"], str(record["calls"]), *cells)
    return made


if __name__ == "__main__":
    main()

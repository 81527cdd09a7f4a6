"""How fast an audit is beside a bare loop that decodes the same photographs in the same way and runs the model forward.

usage: python benchmarks/audit.py [--images N] [--pairs N] [--json FILE]

The loop decodes with the audit's own processes, runs `model(batch)` of the model as it is under `no_grad`, and keeps
the classes; the audit makes GradCAM maps, embeddings and summaries, and writes Parquet. They take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from methods import save
from PIL import Image
from timing import spread

import xai_fast as xf
from xai_fast.audit.auditing import carry_out
from xai_fast.audit.decoding.pool import Decoders, Request
from xai_fast.audit.executors.contract import Watch
from xai_fast.audit.inputs import input_of
from xai_fast.audit.manifest import Manifest
from xai_fast.audit.order import Order
from xai_fast.audit.plan import Plan
from xai_fast.audit.store.shards import Shards
from xai_fast.models.demo import CLASSES, photographs

WORKERS, BATCH = 1, 32


class Timed(Watch):
    """When the plan was frozen: what precedes is making ready, and paid once per run, however long."""

    began = 0.0

    def begin(self, plan: Plan, manifest: Manifest, shards: Shards) -> None:
        """The first image comes now."""
        self.began = time.perf_counter()


def write_photographs(folder: Path, count: int) -> None:
    """Crops of the demonstration's photographs, as JPEG of 400 x 300 pixels."""
    draws = np.random.default_rng(0)
    found = photographs()
    for n in range(count):
        name, photo = CLASSES[n % len(found)], Image.fromarray(np.asarray(found[n % len(found)])).convert("RGB")
        share = draws.uniform(0.4, 1)
        width, height = int(photo.width * share), int(photo.height * share)
        left, top = draws.integers(0, photo.width - width + 1), draws.integers(0, photo.height - height + 1)
        path = folder / name / f"{n:06d}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        photo.crop((left, top, left + width, top + height)).resize((400, 300)).save(path, quality=90)


@torch.no_grad()
def bare(folder: Path, model: torch.nn.Module, preprocess: xf.Preprocess) -> float:
    """Images per second of the loop."""
    paths = sorted(folder.rglob("*.jpg"))
    requests = [Request(0, n, lambda path=path: path) for n, path in enumerate(paths)]
    with Decoders(vars(preprocess), workers=WORKERS, ahead=64 + 2 * WORKERS) as decoders:
        next(decoders.stream(requests[:1]))  # the process has started
        began, batch, classes = time.perf_counter(), [], []
        for found in decoders.stream(requests):
            batch.append(input_of(found.pixels, preprocess))
            if len(batch) == BATCH or found.position == len(paths) - 1:
                classes += model(torch.stack(batch)).argmax(1).tolist()
                batch = []
        return len(classes) / (time.perf_counter() - began)


def audited(folder: Path, model: torch.nn.Module) -> float:
    """Images per second of an audit, from its first image on."""
    with tempfile.TemporaryDirectory() as out:
        watch = Timed()
        order = Order(model=model, data=folder, methods=("GradCAM",))
        run = carry_out(order, Path(out) / "run", workers=WORKERS, watch=watch)
        seconds = time.perf_counter() - watch.began
        assert run.counts == {"ok": sum(run.plan.sizes)}
        return sum(run.plan.sizes) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    model, preprocess, _ = xf.load("demo")
    assert preprocess is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder, chosen.images)
        pairs = []
        for n in range(chosen.pairs + 1):  # the first pair warms up
            sides = [lambda: bare(folder, model, preprocess), lambda: audited(folder, model)]
            found = [side() for side in (sides if n % 2 else sides[::-1])]
            pair = found if n % 2 else found[::-1]
            if n:
                pairs.append(pair)
                print(f"bare {pair[0]:6.1f}/s  audit {pair[1]:6.1f}/s  ratio {pair[1] / pair[0]:.2f}")
    ratios = [audit / loop for loop, audit in pairs]
    loops, audits = zip(*pairs, strict=True)
    record = {
        "audit": "GradCAM of the demonstration's network",
        "images": chosen.images,
        "workers": WORKERS,
        "bar": 0.85,
        "ratio": statistics.median(ratios),
        "per_second": {"bare": spread(loops), "audit": spread(audits)},
    }
    print(f"median ratio {record['ratio']:.2f}")
    if chosen.json:
        save(chosen.json, chosen.pairs, [record])


if __name__ == "__main__":
    main()

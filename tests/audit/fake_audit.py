"""An audit without a model: the store, the plan and the executor on made-up answers; as a script, one that is killed.

`python fake_audit.py FOLDER [--kill-at N | --images N]` makes the run in FOLDER, and kills itself when it has touched
the disk N times.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from xai_fast.audit.answers import Answer
from xai_fast.audit.decoding.pool import Decoded
from xai_fast.audit.executors.contract import Watch
from xai_fast.audit.executors.local import run_shards
from xai_fast.audit.manifest import manifest_of
from xai_fast.audit.plan import Plan
from xai_fast.audit.store.shards import Shards
from xai_fast.audit.work import Job

IMAGES, SHARD = 50, 8


class Source:
    """Images that are never looked at."""

    def fetch(self, row):
        return b""


class FakeAttributor:
    """Answers that depend on the image's id, and on which images share a batch, as rounding does."""

    preprocess = None

    def __init__(self):
        self.batches = []
        self.memory = None  # says whether an image with so many rows is too much

    def input_of(self, photo):
        if photo.position == 3:
            raise ValueError("too dark")
        return photo.pixels

    def __call__(self, inputs, ids, labels, halvings=0):
        self.batches.append(tuple(ids))
        if self.memory is not None and any(self.memory(number, len(ids) * (8 >> halvings)) for number in ids):
            raise MemoryError("memory ran out")
        if 13 in ids:
            raise RuntimeError("thirteen")
        return [self._answer(number, len(ids)) for number in ids]

    def _answer(self, number, together):
        draws = np.random.default_rng([number, together])
        return Answer(
            outputs=draws.standard_normal(3).astype(np.float32),
            target=number % 3,
            embedding=draws.standard_normal(4).astype(np.float32),
            maps={"A": draws.random((2, 3), dtype=np.float32), "B": draws.standard_normal((4, 4), dtype=np.float32)},
            evaluations={"A": 1, "B": 7},
        )


def stream(requests):
    for request in requests:
        status = "decode_error" if request.position == 5 else "ok"
        yield Decoded(
            request.shard,
            request.position,
            None if status != "ok" else np.zeros((4, 4, 3), np.uint8),
            (40, 30),
            (0.5, 0.1, 0.5, 0.5, 0.5, 0.0),
            status,
            None if status == "ok" else "broken",
        )


def plan_of(manifest, **changed):
    methods = [{"label": "A", "map": [2, 3], "signed": False}, {"label": "B", "map": [4, 4], "signed": True}]
    attribution = {
        "methods": methods,
        "embedding": 4,
        "labels": {"cat": 0, "dog": 1},
        "images_per_call": 3,
        "preprocess": {},
    }
    images = {"sha256": manifest.sha256(), "images": len(manifest), "metadata": {}}
    return Plan({"manifest": images, "shard_size": SHARD, "attribution": attribution, **changed}, {})


def manifest(images=IMAGES):
    return manifest_of([{"uri": f"{('cat', 'dog', 'eel')[n % 3]}/{n}.jpg", "label": "cat"} for n in range(images)])


def job_in(folder: Path, images=IMAGES, memory=None, **changed):
    """A run in a folder, its plan frozen."""
    made = manifest(images)
    plan = plan_of(made, **changed)
    plan.freeze(folder, made.to_bytes())
    Plan.load(folder).refuse_other(plan)
    shards = Shards(folder, plan.fingerprint, plan.sizes)
    shards.prepare()
    attributor = FakeAttributor()
    attributor.memory = memory
    return Job(plan, made, shards, attributor)


def run(folder: Path, indexes=None, memory=None, images=IMAGES):
    """Makes what is missing."""
    job = job_in(folder, images, memory)
    chosen = range(len(job.shards)) if indexes is None else indexes
    return job, run_shards(job, chosen, Source(), stream, Watch())


def contents(folder: Path):
    """Every file that must be the same, and no other."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    changing = ("plan.json", "times/", "claims/")  # dates and times; locks, which a killed process leaves behind
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(changing)}


def killing(at: int) -> None:
    """Kills this process when it has touched the disk `at` times: before, or after every second of them."""
    count = 0

    def counted(call):
        def touched(*args, **kwargs):
            nonlocal count
            count += 1
            if count == at and at % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            found = call(*args, **kwargs)
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return touched

    for name in ("fsync", "replace", "link", "open", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    if "--kill-at" in sys.argv:
        killing(int(sys.argv[3]))
    run(Path(sys.argv[1]), images=int(sys.argv[3]) if "--images" in sys.argv else IMAGES)

"""A run made ready in one process: its images listed, its model loaded, its plan frozen or found to be the same."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import torch

from xai_fast._version import __version__
from xai_fast.engine import Engine
from xai_fast.images.preprocess import Preprocess

from .attribution import EngineAttributor
from .decoding.pool import Decoders
from .decoding.worker import FORMATS
from .example import example_of
from .labels import labels_of
from .manifest import Manifest
from .noise import Noise
from .order import Order, made, target_of
from .plan import MANIFEST, Plan, shard_size_for
from .sources.choose import source_of
from .sources.payload import Source
from .store.shards import Shards
from .work import Job


@dataclass(frozen=True)
class Ready:
    """What a process needs to make shards.

    Attributes:
        job: the run.
        source: of its images.
        decoders: of this process.
    """

    job: Job
    source: Source
    decoders: Decoders


@contextmanager
def ready(
    order: Order, out: Path, *, workers: int | None = None, listed: bool = False, threads: int | None = None
) -> Iterator[Ready]:
    """Freezes the plan of a run, unless it is frozen, and starts the processes that decode, which end with the context.

    Args:
        order: what is wanted.
        out: folder of the run.
        workers: processes that decode.
        listed: take the list of images from the run instead of listing the data again.
        threads: of torch, for a plan that is made here; None: as many as there are.

    Raises:
        ValueError, TypeError: wrong usage; among it another plan in the folder.
        StoreError: the folder cannot be written to.
    """
    frozen = Plan.load(out)
    source = source_of(order.data)
    manifest = Manifest.load(out / MANIFEST) if listed else source.manifest()
    engine, methods = made(order, None if frozen is None else frozen.fixed["decisions"])
    threads = (threads or torch.get_num_threads()) if frozen is None else int(frozen.fixed["threads"])
    with _threads(threads), _decoders(engine, order, workers) as decoders:
        fixed_size = isinstance(engine.preprocess, Preprocess) and engine.preprocess.crop is not None
        example = example_of(manifest, source, decoders, engine.preprocess)
        labels = labels_of(manifest, engine.classes)
        target = target_of(order, engine)
        noise = Noise(order.noisy) if order.noisy else None
        # A callable says not what part of a photograph it takes, so that no mask could be laid over it.
        masks = manifest.has_masks and isinstance(engine.preprocess, Preprocess)
        kept = {"fixed_size": fixed_size, "noise": noise, "masks": masks}
        attributor = EngineAttributor(engine, methods, labels, target, example, **kept)
        if order.tune and frozen is None:
            attributor.measure(example)
        looks = frozen is None or frozen.looks  # a run that was begun without goes on without
        plan = _plan(order, manifest, attributor, engine, threads, looks)
        if frozen is None:
            plan.freeze(out, manifest.to_bytes())
            frozen = Plan.load(out)
            assert frozen is not None
            if order.tune:  # what was measured is only read from here on, as a process that resumes reads it
                engine, methods = made(order, frozen.fixed["decisions"])
                attributor = EngineAttributor(engine, methods, labels, target, example, **kept)
                plan = _plan(order, manifest, attributor, engine, threads, looks)
        frozen.refuse_other(plan)
        shards = Shards(out, frozen.fingerprint, frozen.sizes)
        shards.prepare()
        yield Ready(Job(frozen, manifest, shards, attributor), source, decoders)


def _plan(
    order: Order, manifest: Manifest, attributor: EngineAttributor, engine: Engine, threads: int, looks: bool
) -> Plan:
    size = order.shard_size or shard_size_for(len(manifest), attributor.rows_per_image)
    fixed = {
        "manifest": {
            "sha256": manifest.sha256(),
            "images": len(manifest),
            "metadata": {name: str(kind) for name, kind in manifest.metadata.items()},
        },
        "shard_size": size,
        "attribution": attributor.described(),
        "decoding": {
            "formats": list(FORMATS),
            "time_out": order.time_out,
            **({"looks": True} if looks else {}),
        },
        "decisions": engine.decisions.entries,
        "threads": threads,
        "versions": {
            "xai_fast": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "pyarrow": pa.__version__,
        },
    }
    machine = {"machine": platform.machine(), "instructions": torch.backends.cpu.get_cpu_capability()}
    notes = [*manifest.notes]
    if manifest.has_masks and not isinstance(engine.preprocess, Preprocess):
        notes.append(
            "masks are left out: preprocessing is a callable, which says not what part of a photograph it takes"
        )
    about = {"order": order.repeatable, "machine": machine, "notes": notes}
    classes = None if engine.classes is None else list(engine.classes)
    return Plan(fixed, {**about, "classes": classes})


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decoders(engine: Engine, order: Order, workers: int | None) -> Decoders:
    found = os.cpu_count() or 1
    on_cpu = not torch.cuda.is_available()
    count = workers or (max(1, found // 4) if on_cpu else max(1, found - 1))
    preprocess = engine.preprocess
    settings = vars(preprocess) if isinstance(preprocess, Preprocess) else None
    return Decoders(settings, workers=count, ahead=64 + 2 * count, time_out=order.time_out)

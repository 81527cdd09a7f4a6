"""`xf.audit`: freeze a plan, make every shard that is missing, read the result."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import pyarrow as pa
import torch
from torch import Tensor

from xai_fast._printing import printable
from xai_fast._version import __version__
from xai_fast.engine import Engine
from xai_fast.engine.settings import Mode
from xai_fast.images.preprocess import Preprocess
from xai_fast.methods.base import AbstractMethod

from .attribution import EngineAttributor
from .decoding.pool import Decoders
from .decoding.worker import FORMATS
from .example import example_of
from .executors.local import Watch, run_shards
from .labels import labels_of
from .manifest import Manifest
from .order import Order, check, made, target_of
from .plan import MANIFEST, Plan, shard_size_for
from .reading import AuditRun, read
from .sources.choose import source_of
from .store.shards import Shards
from .work import Job


def audit(
    model: Any,
    data: Any,
    *,
    methods: str | AbstractMethod | Sequence[str | AbstractMethod] = "GradCAM",
    out: str | Path,
    target: int | str | None = None,
    preprocess: Callable[[Any], Tensor] | None = None,
    classes: Sequence[str] | None = None,
    mode: Mode = "exact",
    batch_size: int | Literal["auto"] = "auto",
    shard: tuple[int, int] = (0, 1),
    shard_size: int | None = None,
    workers: int | None = None,
    time_out: float = 30.0,
    tune: bool = False,
) -> AuditRun:
    """Attributions of every image of a data set, in a folder of Parquet files that a killed run goes on with.

    Killed at any moment and called again with the same arguments, it goes on where it was, and ends with the same bytes
    as a run that nobody disturbed (on one kind of machine). An image that cannot be read or explained is a row whose
    `status` is not "ok".

    Args:
        model: a module, a callable, an `Engine`, or what `xf.load` takes.
        data: a folder of images, classes by its folders; a .csv or .parquet table with a column `path` (and `label`,
            `mask`, `id`, metadata); .parquet tables that hold images, as Hugging Face's; uncompressed .tar files as
            WebDataset's. A path, a pattern of several ("train-*.tar"), or a URL that fsspec knows.
        methods: names, or methods made for this model.
        out: folder of the run: `plan.json`, `manifest.parquet`, `shards/*.parquet`.
        target: None: the predicted class; a class by index or name; "label": the image's label where it is known.
        preprocess: from a PIL image to (C, H, W); known already for models that `xf.load` made.
        classes: names of the outputs; likewise.
        mode: see `Engine`.
        batch_size: model rows per forward; "auto": a fixed number for the device.
        shard: (i, n): only every n-th shard, from the i-th; so n processes share a run.
        shard_size: images per shard; None: by their number and the methods' cost.
        workers: processes that decode; None: by the number of processors.
        time_out: seconds that decoding one image may take.
        tune: measure what is fast (plans, rows per forward) once, and freeze that.

    Returns:
        The run; `read(out)` gives it later.

    Raises:
        ValueError, TypeError: wrong usage, before anything ran; among it a folder with another plan.
        StoreError: the folder cannot be written to; what is there stays.
        KeyboardInterrupt: the shard in work is dropped, those before it are there.
    """
    several = (methods,) if isinstance(methods, str | AbstractMethod) else tuple(methods)
    order = Order(
        model=model,
        data=data,
        methods=several,
        target=target,
        preprocess=preprocess,
        classes=classes,
        mode=mode,
        batch_size=batch_size,
        shard_size=shard_size,
        time_out=time_out,
        tune=tune,
    )
    return carry_out(order, Path(out), shard=shard, workers=workers)


def resume(
    out: str | Path, *, shard: tuple[int, int] = (0, 1), workers: int | None = None, watch: Watch | None = None
) -> AuditRun:
    """Goes on with a run from what its plan says; the data are not listed again.

    Raises:
        ValueError: as `audit`; or the run was made from objects, which only a call of `audit` can bring again.
    """
    plan = read(out).plan
    found = plan.about.get("order")
    if found is None:
        raise ValueError(
            f"`out` {printable(str(out))} was begun from Python with a model, methods or preprocessing that have no "
            "name; call xf.audit(...) again with the same arguments"
        )
    order = Order(**{**found, "methods": tuple(found["methods"])})
    return carry_out(order, Path(out), shard=shard, workers=workers, watch=watch, listed=True)


def carry_out(
    order: Order,
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
    watch: Watch | None = None,
    listed: bool = False,
) -> AuditRun:
    """See `audit`.

    Args:
        order: what is wanted.
        out: folder of the run.
        shard: (i, n).
        workers: processes that decode.
        watch: is told how far it is; see `Watch`.
        listed: take the list of images from the run instead of listing the data again.
    """
    check(order, shard, workers)
    watch = watch or Watch()
    frozen = Plan.load(out)
    source = source_of(order.data)
    manifest = Manifest.load(out / MANIFEST) if listed else source.manifest()
    engine, methods = made(order, None if frozen is None else frozen.fixed["decisions"])
    threads = torch.get_num_threads() if frozen is None else int(frozen.fixed["threads"])
    with _threads(threads), _decoders(engine, order, workers) as decoders:
        fixed_size = isinstance(engine.preprocess, Preprocess) and engine.preprocess.crop is not None
        example = example_of(manifest, source, decoders, engine.preprocess)
        labels = labels_of(manifest, engine.classes)
        attributor = EngineAttributor(engine, methods, labels, target_of(order, engine), example, fixed_size=fixed_size)
        if order.tune and frozen is None:
            attributor.measure(example)
        plan = _plan(order, manifest, attributor, engine, threads)
        if frozen is None:
            plan.freeze(out, manifest.to_bytes())
            frozen = Plan.load(out)
            assert frozen is not None
        frozen.refuse_other(plan)
        shards = Shards(out, frozen.fingerprint, frozen.sizes)
        shards.prepare()
        watch.begin(frozen, manifest, shards)
        job = Job(frozen, manifest, shards, attributor)
        worked = run_shards(job, range(shard[0], len(shards), shard[1]), source, decoders.stream, watch)
    if worked.left and not worked.written:
        raise ValueError(
            f"`out` {printable(str(out))} is being worked on by another process; wait for it, or share the work by "
            "`shard` (i, n)"
        )
    return AuditRun(out, frozen)


def _plan(order: Order, manifest: Manifest, attributor: EngineAttributor, engine: Engine, threads: int) -> Plan:
    size = order.shard_size or shard_size_for(len(manifest), attributor.rows_per_image)
    fixed = {
        "manifest": {
            "sha256": manifest.sha256(),
            "images": len(manifest),
            "metadata": {name: str(kind) for name, kind in manifest.metadata.items()},
        },
        "shard_size": size,
        "attribution": attributor.described(),
        "decoding": {"formats": list(FORMATS), "time_out": order.time_out},
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
    about = {"order": order.repeatable, "machine": machine, "notes": list(manifest.notes)}
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

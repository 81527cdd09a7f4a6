"""`xf.audit`: freeze a plan, make every shard that is missing, read the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from xai_fast._printing import printable
from xai_fast.engine.settings import Mode
from xai_fast.methods.base import AbstractMethod

from .executors.contract import Watch
from .executors.local import run_shards
from .executors.on_ray import run_on_ray
from .order import Executor, Order, check, check_folder
from .reading import AuditRun, read
from .ready import ready


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
    noisy: float = 0.0,
    executor: Executor = "local",
    actors: int | None = None,
) -> AuditRun:
    """Attributions of every image of a data set, in a folder of Parquet files that a killed run goes on with.

    Killed at any moment and called again with the same arguments, it goes on where it was, and ends with the same bytes
    as a run that nobody disturbed (on one kind of machine). An image that cannot be read or explained is a row whose
    `status` is not "ok".

    Where a table names masks (pictures of the photographs' sizes, not black where the object is), how much of each of
    the map's cells they cover is kept beside the maps; a bad mask costs itself, and `mask_error` says why.

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
        noisy: share of the images, chosen by their ids, that are explained once more on a copy with normal noise of 2 %
            of the input's range, for the check "unstable". Costs that share of the model's time again, memory of one
            further batch, and 12 bytes per image and method.
        executor: "local": this process; "ray": actors of Ray's, on the cluster to which this process is connected or
            that RAY_ADDRESS names, else on this machine. `out` and `data` must be where every node sees them.
        actors: how many; None: one per GPU, or as many as the processors have room for.

    Returns:
        The run; `read(out)` gives it later.

    Raises:
        ValueError, TypeError: wrong usage, before anything ran; among it a folder with another plan.
        StoreError: the folder cannot be written to; what is there stays.
        ExecutorError: a shard ended every actor that worked on it.
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
        noisy=noisy,
    )
    return carry_out(order, Path(out), shard=shard, workers=workers, executor=executor, actors=actors)


def resume(
    out: str | Path,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
    watch: Watch | None = None,
    executor: Executor = "local",
    actors: int | None = None,
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
    return carry_out(
        order, Path(out), shard=shard, workers=workers, watch=watch, listed=True, executor=executor, actors=actors
    )


def carry_out(
    order: Order,
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
    watch: Watch | None = None,
    listed: bool = False,
    executor: Executor = "local",
    actors: int | None = None,
) -> AuditRun:
    """See `audit`.

    Args:
        order: what is wanted.
        out: folder of the run.
        shard: (i, n).
        workers: processes that decode.
        watch: is told how far it is; see `Watch`.
        listed: take the list of images from the run instead of listing the data again.
        executor: "local" or "ray".
        actors: of Ray.
    """
    check_folder(out)
    check(order, shard, workers, executor, actors)
    watch = watch or Watch()
    if executor == "ray":
        worked = run_on_ray(order, out, shard=shard, workers=workers, actors=actors, watch=watch, listed=listed)
    else:
        with ready(order, out, workers=workers, listed=listed) as here:
            watch.begin(here.job.plan, here.job.manifest, here.job.shards)
            chosen = range(shard[0], len(here.job.shards), shard[1])
            worked = run_shards(here.job, chosen, here.source, here.decoders.stream, watch)
    if worked.left and not worked.written:
        raise ValueError(
            f"`out` {printable(str(out))} is being worked on by another process; wait for it, or share the work by "
            "`shard` (i, n)"
        )
    return read(out)

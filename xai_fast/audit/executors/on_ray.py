"""Shards worked on by Ray's actors, one per device: each writes its own, so that no map crosses the network."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from xai_fast.audit.manifest import Manifest
from xai_fast.audit.order import Order
from xai_fast.audit.plan import MANIFEST, Plan
from xai_fast.audit.ready import Ready, ready
from xai_fast.audit.store.shards import Shards

from .contract import ExecutorError, Watch, Worked
from .local import run_shards
from .shares import TRIES, Shares

_OBJECTS = 256 << 20  # bytes of Ray's object store in a cluster that is started here: only numbers go through it
_EVERY = 0.25  # seconds between two looks at what was written


def run_on_ray(
    order: Order,
    out: Path,
    *,
    shard: tuple[int, int],
    workers: int | None,
    actors: int | None,
    watch: Watch,
    listed: bool,
) -> Worked:
    """Makes the shards that are missing on a Ray cluster, or on this machine where none is named.

    The cluster is the one to which this process is connected, else that of the variable RAY_ADDRESS. `out` and `data`
    must be where every node sees them. An actor that ends is replaced and what it held is handed out again.

    Args:
        order: what is wanted; it goes to the actors as it is.
        out: folder of the run.
        shard: (i, n).
        workers: processes that decode, per actor.
        actors: how many; None: one per GPU, or as many as the processors have room for.
        watch: is told.
        listed: see `ready`.

    Raises:
        ImportError: there is no Ray.
        ValueError, TypeError: as `ready`.
        StoreError: the folder cannot be written to.
        ExecutorError: a shard has ended every actor that worked on it.
    """
    ray = _ray()
    if isinstance(order.data, str | Path) and "://" not in str(order.data):
        order = dataclasses.replace(order, data=os.path.abspath(order.data))
    with _cluster(ray):
        crew = _Crew(ray, actors, (order, out.absolute(), workers, listed), watch)
        try:
            crew.prepare()
            plan = Plan.load(out)
            assert plan is not None
            manifest = Manifest(Manifest.load(out / MANIFEST).table, tuple(plan.about.get("notes", ())))
            shards = Shards(out, plan.fingerprint, plan.sizes)
            watch.begin(plan, manifest, shards)
            missing = [n for n in range(shard[0], len(shards), shard[1]) if shards.facts(n) is None]
            return crew.work(shards, missing)
        finally:
            crew.dismiss()


class _Actor:
    """What runs in an actor."""

    def __init__(self, order: Order, out: Path, workers: int | None, listed: bool, threads: int) -> None:
        self._arguments = {"order": order, "out": out, "workers": workers, "listed": listed, "threads": threads}
        self._open = ExitStack()
        self._ready: Ready | None = None

    def prepare(self) -> None:
        """Makes the run ready here; see `ready`."""
        self._ready = self._ready or self._open.enter_context(ready(**self._arguments))

    def run(self, shares: Any, number: int) -> list[int]:
        """Makes shards as long as there are some; those that other processes are working on."""
        ray = _ray()
        self.prepare()
        assert self._ready is not None

        def handed() -> Iterator[int]:
            while (index := ray.get(shares.ask.remote(number))) is not None:
                yield index

        watch = _Reports(shares, number)
        return run_shards(self._ready.job, handed(), self._ready.source, self._ready.decoders.stream, watch).left


class _Reports(Watch):
    """Tells who hands out shards which are written."""

    def __init__(self, shares: Any, number: int) -> None:
        self._shares, self._number = shares, number
        self._statuses: list[str] = []

    def images(self, statuses: list[str]) -> None:
        """See `Watch`."""
        self._statuses += statuses

    def shard(self, index: int) -> None:
        """See `Watch`."""
        self._shares.done.remote(self._number, index, self._statuses)
        self._statuses = []


class _Crew:
    """The actors of a run."""

    def __init__(self, ray: Any, actors: int | None, arguments: tuple[Any, ...], watch: Watch) -> None:
        threads = torch.get_num_threads()
        self._count, resources = _resources(ray.cluster_resources(), actors, threads)
        self._ray, self._arguments, self._watch = ray, (*arguments, threads), watch
        self._kind = ray.remote(**resources)(_Actor)
        self._actors: dict[int, Any] = {}
        self._made = 0
        self._shares: Any = None

    def prepare(self) -> None:
        """The first actor freezes the plan, unless it is frozen; the others then find it."""
        for left in reversed(range(TRIES)):
            number = self._hire()
            try:
                return self._got(self._actors[number].prepare.remote())
            except self._ray.exceptions.RayActorError as error:
                self._actors.pop(number)
                if not left:
                    raise ExecutorError(f"actors end while they load the model: {_first(error)}") from None

    def work(self, shards: Shards, missing: list[int]) -> Worked:
        """Makes shards."""
        self._shares = self._ray.remote(num_cpus=0)(Shares).remote()
        self._got(self._shares.begin.remote(missing))
        worked, running, left = Worked(), {}, True
        while left:
            _, waiting, _ = self._told(worked)
            while waiting and len(running) < self._count:
                idle = [number for number in self._actors if number not in running.values()]
                number = idle[0] if idle else self._hire()
                running[self._actors[number].run.remote(self._shares, number)] = number
            ended, _ = self._ray.wait(list(running), num_returns=1, timeout=_EVERY) if running else ([], [])
            for ref in ended:
                self._ended(ref, running.pop(ref), shards, worked)
            _, waiting, held = self._told(worked)
            left = bool(waiting or held)
        if lost := self._got(self._shares.lost_for_good.remote()):
            raise ExecutorError(
                f"shard{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))} ended {TRIES} actors that worked on "
                "it (memory?); the others are there. See Ray's logs of the actors, then resume the run"
            )
        worked.written.sort()
        return worked

    def dismiss(self) -> None:
        """Ends the actors."""
        for actor in (*self._actors.values(), *filter(None, [self._shares])):
            with suppress(Exception):  # it may have ended, or the cluster
                self._ray.kill(actor)

    def _hire(self) -> int:
        self._made += 1
        order, out, workers, listed, threads = self._arguments
        self._actors[self._made] = self._kind.remote(order, out, workers, listed or self._made > 1, threads)
        return self._made

    def _ended(self, ref: Any, number: int, shards: Shards, worked: Worked) -> None:
        """An actor has no more to do, or is gone."""
        try:
            worked.left += self._got(ref)
            self._got(self._shares.ended.remote(number))
        except self._ray.exceptions.RayActorError as error:
            self._actors.pop(number)
            held = self._got(self._shares.lost.remote(number))
            for index in held:
                if (facts := shards.facts(index)) is not None:  # written, and then it was gone
                    self._count_in(worked, index, [status for status, n in facts["counts"].items() for _ in range(n)])
            self._watch.said(f"an actor ended ({_first(error)}); what it held is made again: shards {held}")

    def _told(self, worked: Worked) -> tuple[Any, int, int]:
        """What the actors have written meanwhile, how many shards wait, and how many are held."""
        news, waiting, held = self._got(self._shares.news.remote())
        for index, statuses in news:
            self._count_in(worked, index, statuses)
        return news, waiting, held

    def _count_in(self, worked: Worked, index: int, statuses: list[str]) -> None:
        worked.written.append(index)
        self._watch.images(statuses)
        self._watch.shard(index)

    def _got(self, ref: Any) -> Any:
        """What an actor returns; raises what it raised, as if it had been here."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("`executor` 'ray' needs Ray; `pip install 'xai_fast[ray]'`") from None
    return ray


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """The cluster that is there, else one on this machine, without a dashboard, that ends with the context."""
    if ray.is_initialized():
        yield
        return
    further = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "object_store_memory": _OBJECTS}
    further |= {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, logging_level="warning", **further)
    if main:
        signal.signal(signal.SIGTERM, handler)  # Ray put its own in its place
    try:
        yield
    finally:
        ray.shutdown()


def _resources(found: dict[str, float], actors: int | None, threads: int) -> tuple[int, dict[str, float]]:
    """How many actors, and what each holds of the cluster."""
    processors = found.get("CPU", 1.0)
    if devices := int(found.get("GPU", 0)):
        count = actors or devices
        return count, {"num_gpus": 1 if count <= devices else devices / count, "num_cpus": min(1, processors / count)}
    count = actors or max(1, int(processors) // threads)
    share = processors / count
    return count, {"num_cpus": min(threads, int(share)) if share >= 1 else int(share * 100) / 100}


def _first(error: BaseException) -> str:
    """What Ray says of an actor's end, without its pages of advice."""
    return " ".join(str(error).split("\n")[0].split()).rstrip(".")

"""`xai-fast audit run | status | resume | export`: what is done with what was typed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_fast._printing import printable
from xai_fast.audit.auditing import Executor, Order, carry_out
from xai_fast.audit.auditing import resume as resume_run
from xai_fast.audit.executors.contract import ExecutorError
from xai_fast.audit.exports import write_csv, write_fiftyone, write_overlays, write_virelay
from xai_fast.audit.reading import AuditRun, read
from xai_fast.audit.store.schema import OK
from xai_fast.audit.store.shards import StoreError
from xai_fast.ops import check_available

from .audit_progress import Watching
from .console import line, paragraph, problem, table
from .interrupts import INTERRUPTED, Interrupts
from .settings import settings_for

_SHOWN = 5  # failed images that are named


def order_of(
    model: str,
    data: str,
    methods: tuple[str, ...],
    pairs: tuple[str, ...],
    layer: str | None,
    target: str | None,
    **further: Any,
) -> Order:
    """What was typed, as an order.

    Raises:
        ValueError: wrong usage.
    """
    check_available()
    settings = settings_for(methods, pairs, layer)
    chosen = int(target) if target is not None and target.isdecimal() else target
    return Order(model=model, data=data, methods=tuple(settings), settings=settings, target=chosen, **further)


@dataclass(frozen=True)
class Hands:
    """Who works: which share of the shards, how many processes that decode, which executor and how many actors."""

    shard: tuple[int, int]
    workers: int | None
    executor: Executor
    actors: int | None


def run(order: Order, out: Path, hands: Hands, interrupts: Interrupts) -> int:
    """Runs, or goes on; returns the exit code."""

    def work(watch: Watching) -> AuditRun:
        return carry_out(order, out, watch=watch, **vars(hands))

    return _watched(work, out, hands, interrupts)


def resume(out: Path, hands: Hands, interrupts: Interrupts) -> int:
    """Goes on with a run; returns the exit code."""

    def work(watch: Watching) -> AuditRun:
        return resume_run(out, watch=watch, **vars(hands))

    return _watched(work, out, hands, interrupts)


def _watched(work: Callable[[Watching], AuditRun], out: Path, hands: Hands, interrupts: Interrupts) -> int:
    with Watching(hands.shard) as watch:
        try:
            found = work(watch)
        except KeyboardInterrupt:
            interrupts.came = True
            found = None
        except (StoreError, ExecutorError) as error:
            if watch.total == 0:
                raise ValueError(f"`--out` {error}" if isinstance(error, StoreError) else str(error)) from error
            found = None
            problem(str(error))
    with interrupts.postponed():
        if found is None:
            return _stopped(out, hands, watch, interrupts)
        speed = f", {watch.speed:,.1f} images per second" if watch.answered.total() else ""
        line(f"{watch.total:,} images, {watch.failed:,} failed{speed}; in ", (printable(str(out)), "bold"))
        if watch.failed:
            _name_failures(found)
        _name_bad_masks(found)
        left = watch.total - watch.done - watch.answered.total()
        if left:
            line(f"{left:,} images are left to other processes that work on them")
            return 4
        return 3 if watch.failed else 0


def _stopped(out: Path, hands: Hands, watch: Watching, interrupts: Interrupts) -> int:
    """Says how to go on."""
    if watch.total == 0:
        problem("interrupted before the run began")
        return INTERRUPTED
    share = "" if hands.shard == (0, 1) else f" --shard {hands.shard[0]}/{hands.shard[1]}"
    share += "" if hands.executor == "local" else f" --executor {hands.executor}"
    line(f"{'interrupted' if interrupts.came else 'stopped'}; whole shards are kept. Go on with")
    line((f"  xai-fast audit resume {shlex.quote(printable(str(out)))}{share}", "bold"))
    return 4


def _name_failures(found: AuditRun) -> None:
    rows = found.table(["uri", "status", "error"])
    rows = [row for row in rows.to_pylist() if row["status"] != OK]
    for row in rows[:_SHOWN]:
        line(f"  {printable(row['uri'])}: {row['status']}: {row['error']}")
    if len(rows) > _SHOWN:
        line(f"  and {len(rows) - _SHOWN:,} more; `xai-fast audit status --failed` lists them")


def _name_bad_masks(found: AuditRun) -> None:
    """Says how many masks cannot be used, and why the first cannot: each costs its own image's mask alone."""
    if "mask_error" not in found.schema.names:
        return
    rows = found.table(["uri", "mask_area", "mask_error"])
    bad = rows.filter(rows.column("mask_error").is_valid())
    masks = len(bad) + len(rows) - rows.column("mask_area").null_count
    if len(bad):
        line(f"{len(bad):,} of {masks:,} masks cannot be used:")
        for row in bad.slice(0, _SHOWN).to_pylist():
            line(f"  {printable(row['uri'])}: {row['mask_error']}")
        if len(bad) > _SHOWN:
            line(f"  and {len(bad) - _SHOWN:,} more, in the column mask_error")


def status(out: Path, failed: bool, verify: bool) -> int:
    """Prints how far a run is; returns the exit code."""
    found = read(out)
    shards, counts = found.shards, found.counts
    done, total = sum(counts.values()), sum(found.plan.sizes)
    line((printable(str(out)), "bold"), f": {', '.join(found.methods)} of {_model_of(found)}")
    line(f"{done:,} of {total:,} images, {len(found.done):,} of {len(shards):,} shards")
    if counts:
        table(["status", "images"], [[name, str(count)] for name, count in sorted(counts.items(), key=lambda c: -c[1])])
    if small := [index for index in found.done if (shards.facts(index) or {}).get("backoff")]:
        named = ", ".join(map(str, small[:_SHOWN])) + (", ..." if len(small) > _SHOWN else "")
        line(f"memory ran out in {len(small):,} shards ({named}), which went on in smaller batches")
    _name_bad_masks(found)
    damaged = _name_damaged(found, verify)
    if failed:
        for row in found.table(["uri", "status", "error"]).to_pylist():
            if row["status"] != OK:
                line(f"{printable(row['uri'])}: {row['status']}: {row['error']}")
    if not found.complete or damaged:
        paragraph(f"go on with: xai-fast audit resume {shlex.quote(printable(str(out)))}", 0)
        return 4
    return 3 if done > counts.get(OK, 0) else 0


def _name_damaged(found: AuditRun, verify: bool) -> bool:
    """Says which shards are damaged; a resume sees it by itself where the end of the file is."""
    shards, some = found.shards, False
    for index in range(len(shards)):
        if shards.damaged(index):
            problem(f"shard {index} is damaged; resume to make it again")
        elif verify and not _sound(found, index):
            problem(
                f"shard {index} is damaged; remove {printable(str(shards.path(index)))} and resume to make it again"
            )
        else:
            continue
        some = True
    return some


def _sound(found: AuditRun, index: int) -> bool:
    try:
        return found.shards.facts(index) is None or found.shards.read(index) is not None
    except ValueError:
        return False


def _model_of(found: AuditRun) -> str:
    order = found.plan.about.get("order")
    return printable(order["model"]) if order else "a model given from Python"


def export(
    out: Path,
    csv: Path | None,
    folders: Mapping[str, Path | None],
    method: str | None,
    limit: int | None,
) -> None:
    """Writes what was asked for.

    Args:
        out: folder of the run.
        csv: file for rows.
        folders: by kind, "overlays", "virelay" or "fiftyone".
        method: whose maps.
        limit: images at most.

    Raises:
        ValueError: nothing was, or it does not fit.
    """
    found = read(out)
    wanted = {kind: folder for kind, folder in folders.items() if folder is not None}
    if csv is None and not wanted:
        raise ValueError("nothing to export; give --csv FILE, or --overlays, --virelay or --fiftyone FOLDER")
    if not found.complete:
        line(f"the run is not complete: {sum(found.counts.values()):,} of {sum(found.plan.sizes):,} images are there")
    if csv is not None:
        line(f"{write_csv(found, csv):,} rows in ", (printable(str(csv)), "bold"))
    for kind, folder in wanted.items():
        line(f"{_WRITERS[kind](found, folder, method, limit):,} pictures in ", (printable(str(folder)), "bold"))


_WRITERS = {"overlays": write_overlays, "virelay": write_virelay, "fiftyone": write_fiftyone}

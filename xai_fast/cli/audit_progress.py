"""How far an audit is: images per second, time left and failures, as a bar on a terminal and as lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter

from rich import progress as rich

from xai_fast.audit.executors.contract import Watch
from xai_fast.audit.manifest import Manifest
from xai_fast.audit.plan import Plan
from xai_fast.audit.store.schema import OK
from xai_fast.audit.store.shards import Shards, failed

from .console import err, line

_SECONDS = 15.0  # between two lines
_RECENT = 30.0  # seconds over which the speed is taken


class Watching(Watch):
    """A context that is told by the run.

    Args:
        shard: (i, n), which of the shards are this process's.
    """

    def __init__(self, shard: tuple[int, int]) -> None:
        self._shard = shard
        self.done = self.total = self.failed = 0
        self.answered: Counter[str] = Counter()
        self._times: list[tuple[float, int]] = []
        self._said = time.monotonic()
        self._bar = rich.Progress(
            rich.TextColumn("images"),
            rich.BarColumn(bar_width=None),
            rich.TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            rich.TextColumn("{task.fields[said]}"),
            console=err,
            transient=True,
            expand=True,
            redirect_stdout=False,  # what rich puts in their place would write to the console that writes to it
            redirect_stderr=False,
            disable=not sys.stderr.isatty(),
        )
        self._task: rich.TaskID | None = None

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, plan: Plan, manifest: Manifest, shards: Shards) -> None:
        """The plan is frozen; says what will be done."""
        index, count = self._shard
        for number in range(index, len(shards), count):
            size = plan.sizes[number]
            self.total += size
            if shards.damaged(number):
                line(f"shard {number} is damaged, or of another run, and is made again")
            if (facts := shards.facts(number)) is not None:
                self.done += size
                self.failed += failed(facts)
        for note in manifest.notes:
            line(note)
        there = f", {self.done:,} of them done before" if self.done else ""
        here = len(range(index, len(shards), count))
        line(f"{self.total:,} images in {here:,} shard{'' if here == 1 else 's'}{there}")
        self._times.append((time.monotonic(), 0))
        self._task = self._bar.add_task("", total=self.total, completed=self.done, said="")
        self._bar.start()

    def images(self, statuses: list[str]) -> None:
        """So many images are answered."""
        if not statuses:
            return
        self.answered.update(statuses)
        self.failed += sum(status != OK for status in statuses)
        now = time.monotonic()
        self._times.append((now, self.answered.total()))
        while len(self._times) > 2 and now - self._times[1][0] > _RECENT:
            self._times.pop(0)
        if self._task is not None:
            self._bar.update(self._task, completed=self._at, said=self._words())
        if self._bar.disable and now - self._said > _SECONDS:
            self._said = now
            err.print(f"{self._at:,} of {self.total:,} images, {self._words()}")

    def said(self, words: str) -> None:
        """Something happened that people should know."""
        line(words)

    @property
    def _at(self) -> int:
        return self.done + self.answered.total()

    @property
    def speed(self) -> float:
        """Images per second, lately."""
        (began, first), (now, last) = self._times[0], self._times[-1]
        return (last - first) / max(now - began, 1e-9)

    def _words(self) -> str:
        left = (self.total - self._at) / max(self.speed, 1e-9)
        failures = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.speed:,.1f}/s, {_duration(left)} left{failures}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

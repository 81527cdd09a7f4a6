"""How many rows go through the model at once: timed on real rows, within memory, halved where that was too hopeful."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from xai_fast.core.memory import out_of_memory
from xai_fast.core.verify import Footprint
from xai_fast.graph.timed import record

from .decisions import MEMORY

# Rows per forward that are tried, each twice: the first run of a size pays for its set-up and is not counted. CPUs are
# fastest at a few rows, where intermediates stay in cache and under the allocator's threshold; GPUs at many.
_FIRST_SIZE = {"cpu": 8, "cuda": 32}
_TIMES = {"cpu": (1, 2, 0.5), "cuda": (1, 2, 4, 8)}  # of the first size
# Rows of small activations cost their calls more than their work: on a CPU the first size is larger for them, as large
# as activations of that many bytes in all. Saliency of 64 images of 32 x 32 takes half as long as in eights.
_ENOUGH, _MOST_AT_FIRST = 1 << 27, 128
HALVINGS = _MOST_AT_FIRST.bit_length()  # after which every batch has one row
_WORTH_CHANGING = 0.97  # a size must be this much faster per row than the first one tried
_LARGE = 1 << 29  # bytes of activations, all layers together, from which on a CPU gains nothing by more rows
_WITHOUT_ASKING = {"cpu": 2 << 30, "cuda": 8 << 30}  # bytes of a batch where what is free at the moment must not count
_LIVE_LAYERS = 4  # activations that a forward without gradient holds at once, residual branches included

_HALVED: ContextVar[int | None] = ContextVar("halved", default=None)


@contextmanager
def halved(times: int) -> Iterator[None]:
    """Inside, batches have a 2^times-th of their rows, and running out of memory is raised instead of halving further.

    So whoever must be able to repeat a run decides, and notes, with how many rows it goes on.
    """
    token = _HALVED.set(times)
    try:
        yield
    finally:
        _HALVED.reset(token)


def repeatable() -> bool:
    """Whether `halved` says with how many rows calls run."""
    return _HALVED.get() is not None


def fewer(rows: int) -> int:
    """A number of rows, halved as often as `halved` says."""
    return max(1, rows >> (_HALVED.get() or 0))


@dataclass
class RowBudget:
    """Decides the size of the next chunk and learns from the last.

    Args:
        device: type of the device that runs the model.
        fixed: the user's own `batch_size`; None to find one.
        most: rows that fit into memory by estimate; None where nothing is known.
        settled: what an earlier call found.
        worth_trying: the largest size that is tried; None for all.
        first: the size to begin with; None for the device's.
    """

    device: str
    fixed: int | None = None
    most: int | None = None
    settled: int | None = None
    worth_trying: int | None = None
    first: int | None = None
    _trials: deque[int] = field(init=False)
    _seconds: dict[int, float] = field(default_factory=dict, init=False)
    _warm: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        first = self.first = self.first or first_size(self.device)
        sizes = [int(times * first) for times in _TIMES.get(self.device, _TIMES["cuda"])]
        largest = min(self.most or max(sizes), self.worth_trying or max(sizes))
        self._trials = deque(size for size in sizes if size <= largest for _ in range(2))
        self.settled = self.fixed or self.settled
        if repeatable():
            size = self.settled or self._best()
            if self.fixed is None and _HALVED.get():  # what a large first size is halved to may still be all rows
                size = min(size, first_size(self.device))
            self.settled = fewer(size if self.most is None else min(size, self.most))

    def rows(self, remaining: int) -> int:
        """The size of the next chunk, at most `remaining`; near-equal chunks where several are left."""
        if self.settled is None and self._trials and self._worth_trying(self._trials[0], remaining):
            return self._trials[0]
        size = self.settled or self._best()
        if self.most is not None:
            size = max(1, min(size, self.most))
        chunks = -(-remaining // size)
        return -(-remaining // chunks)

    @property
    def measuring(self) -> bool:
        """Whether the next chunk is timed."""
        return self.settled is None and bool(self._trials)

    def record(self, rows: int, seconds: float) -> None:
        """Takes the time of a chunk that ran."""
        if not self.measuring or rows != self._trials[0]:
            return
        self._trials.popleft()
        if rows in self._warm:
            self._seconds[rows] = seconds / rows
        self._warm.add(rows)
        if not self._trials:
            self.settled = self._best()

    def halve(self, rows: int) -> None:
        """A chunk of `rows` did not fit into memory."""
        self.most = max(1, rows // 2)
        self._trials = deque(size for size in self._trials if size <= self.most)
        if self.settled is not None or not self._trials:
            self.settled = min(self.settled or self._best(), self.most)

    def _worth_trying(self, size: int, remaining: int) -> bool:
        """Whether the trials of a size may gain more than they cost, which they do not where few rows are left.

        On GPUs more rows are hardly ever slower, and the first size is run anyhow.
        """
        costs = self.device == "cpu" and bool(self._warm) and size not in self._warm
        return remaining >= (4 * size if costs else size)

    def _best(self) -> int:
        first = self.first
        assert first is not None
        if first not in self._seconds:
            return min(self._seconds, key=self._seconds.__getitem__) if self._seconds else first
        best = min(self._seconds, key=self._seconds.__getitem__)
        return best if self._seconds[best] < _WORTH_CHANGING * self._seconds[first] else first


def first_size(device: str, footprint: Footprint | None = None) -> int:
    """With how many rows to begin, on a device of this type and for rows that hold this much."""
    least = _FIRST_SIZE.get(device, _FIRST_SIZE["cuda"])
    if footprint is None or device != "cpu":
        return least
    enough = _ENOUGH // max(footprint.total, 1)
    return min(max(least, 1 << max(enough, 1).bit_length() - 1), _MOST_AT_FIRST)


def rows_that_fit(footprint: Footprint | None, device: torch.device, limit: int | None, *, graph: bool) -> int | None:
    """How many rows fit into `limit` bytes (None: a share of what is free); None where nothing is known of a row.

    Args:
        footprint: what one row holds in activations.
        device: where the model runs.
        limit: the user's `memory_limit` in bytes.
        graph: whether a backward pass needs every activation kept.
    """
    if footprint is None:
        return None
    row = footprint.total + 2 * footprint.largest if graph else _LIVE_LAYERS * footprint.largest
    return max(1, memory_allowed(device, limit) // max(row, 1))


def rows_worth_trying(footprint: Footprint | None, device: torch.device, *, graph: bool) -> int | None:
    """The most rows of which a trial may gain anything; None where nothing speaks against any number.

    More rows share the reading of weights. Where a few hold large activations, that is soon a small part of the work
    (ResNet-50 gains 1 to 3 % from 16 rows over 8), and the trial alone would take hundreds of megabytes.
    """
    if footprint is None or device.type != "cpu" or not graph:
        return None
    return max(first_size("cpu", footprint), _LARGE // max(footprint.total, 1))


def memory_allowed(device: torch.device, limit: int | None) -> int:
    """Bytes that a batch may take: the user's limit, else a share of what is free, which repeated runs do not ask."""
    if limit is not None:
        return limit
    return _WITHOUT_ASKING.get(device.type, _WITHOUT_ASKING["cpu"]) if record().given else free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes that a batch may take: four fifths of what is free on the GPU, half of what is available on the CPU.

    What torch holds back of earlier batches, to use it again, is free as well.
    """
    if device.type == "cuda":
        held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((torch.cuda.mem_get_info(device)[0] + max(held_back, 0)) * 0.8)
    try:
        with open("/proc/meminfo") as lines:
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return available // 2


def unless_full(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or None where memory ran out; under `halved` that is raised."""
    try:
        return call(*args)
    except Exception as error:
        if not out_of_memory(error) or repeatable():
            raise
    record().put(MEMORY, "ran out", True)
    # Outside the handler: the traceback of the error held on to the batch.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None

"""Points of straight lines: the affine first layer of a model maps them to points between what it makes of the ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xai_fast.core.prepared import Prepared
from xai_fast.core.shelf import Shelf
from xai_fast.engine.precision import wait
from xai_fast.graph.layout import LAYOUTS
from xai_fast.graph.processor import said
from xai_fast.ops import path_points

if TYPE_CHECKING:
    from xai_fast.engine.gradients.backward import Backward, Run

_FEWEST = 3  # rows of which the two ends cost less than the rows themselves
_CHUNKS = 2  # timed of each way


@dataclass(frozen=True)
class Line:
    """Where each row lies on a straight line between two inputs.

    Attributes:
        sample: from rows (rows,) to the number of the line that each lies on.
        share: from rows (rows,) to float64 (rows,): 0 is where the line begins, 1 where it ends.
        ends: from numbers of lines to where they end and where they begin, each (lines, C, *S).
    """

    sample: Callable[[Tensor], Tensor]
    share: Callable[[Tensor], Tensor]
    ends: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass
class _Race:
    """Which way runs chunks faster, told by the chunks of real calls, whose sizes are compared with their like.

    Interpolating the stem's output moves as much memory as the stem writes, which between other layers can cost more
    than the stem itself, so that only whole runs tell.
    """

    seconds: dict[tuple[int, bool], list[float]] = field(default_factory=dict)
    behind: bool | None = None

    def turn(self, rows: int) -> bool:
        """Whether a chunk of so many rows runs behind the stem: the faster way, both in turns until it is known."""
        known = self.behind if said().stem is None else said().stem
        if known is not None:
            return known
        return len(self.seconds.get((rows, True), ())) < len(self.seconds.get((rows, False), ()))

    def record(self, rows: int, behind: bool, seconds: float) -> None:
        """Takes the time of a chunk; the first of each way pays for its set-up and is not counted."""
        self.seconds.setdefault((rows, behind), []).append(seconds)
        whole, points = (self.seconds.get((rows, way), ())[1:] for way in (False, True))
        if len(whole) >= _CHUNKS and len(points) >= _CHUNKS:
            self.behind = min(points) < min(whole)


_RACES: Shelf[tuple[()], _Race] = Shelf("races of points behind the first layer")


class Along:
    """Runs points of lines from behind the stem of a model on, where that is faster than running them whole.

    Args:
        line: where rows lie.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._ends: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, backward: Backward, prepared: Prepared, batch: Tensor, rows: Tensor) -> Run:
        """The run of a batch (rows, C, *S) that holds the points `rows`."""
        if backward.stem is None or len(rows) < _FEWEST:
            return backward(batch)
        race = prepared.shelves(batch.shape[1:]).find(_RACES, (), _Race)
        behind, began = race.turn(len(rows)), time.perf_counter()
        run = backward.from_stem(self._points(backward, prepared, batch, rows)) if behind else backward(batch)
        if race.behind is None:
            wait(batch)
            race.record(len(rows), behind, time.perf_counter() - began)
        return run

    @torch.no_grad()
    def _points(self, backward: Backward, prepared: Prepared, batch: Tensor, rows: Tensor) -> Tensor:
        """What the stem makes of the rows, before its activation."""
        assert backward.stem is not None
        lines, position = self._line.sample(rows).unique_consecutive(return_inverse=True)
        wanted = lines.tolist()
        self._ends = {number: ends for number, ends in self._ends.items() if number in wanted}
        for number in wanted:
            if number not in self._ends:
                pair = torch.cat(self._line.ends(torch.tensor([number])))
                end, start = backward.stem.of(prepared.empty(2, pair).copy_(pair)).split(1)
                self._ends[number] = (end, start)
        ends, starts = (_joined([self._ends[number][i] for number in wanted]) for i in (0, 1))
        layout = LAYOUTS.get(ends.ndim, torch.contiguous_format)
        out = torch.empty((len(rows), *ends.shape[1:]), dtype=ends.dtype, device=ends.device, memory_format=layout)
        return path_points(ends, starts, position, position, self._line.share(rows), out)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)

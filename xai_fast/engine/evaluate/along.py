"""Points of straight lines: the affine first layer of a model maps them to points between what it makes of the ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai_fast.core.layout import LAYOUTS
from xai_fast.core.prepared import Prepared
from xai_fast.engine.backward import Backward, Run
from xai_fast.engine.precision import wait
from xai_fast.ops import path_points

_FEWEST = 3  # rows of which the two ends cost less than the rows themselves
# Of the stem's own time: alone, the memory that interpolation moves is in cache; between other layers it is not.
_WORTH = 0.5


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


class Along:
    """Runs points of lines behind the stem of a model, where that is faster than running them whole.

    Interpolating the stem's output moves as much memory as the stem writes, so a stem that is cheap for the processor
    is better run; both are timed once per model.

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
        key = (Along, tuple(batch.shape[1:]))
        if key not in prepared.tails:
            prepared.tails[key] = self._pays(backward, prepared, batch, rows)
        if not prepared.tails[key]:
            return backward(batch)
        return backward.from_stem(self._points(backward, prepared, batch, rows))

    def _pays(self, backward: Backward, prepared: Prepared, batch: Tensor, rows: Tensor) -> bool:
        stem = backward.stem
        assert stem is not None
        points = _seconds(lambda: stem.given(self._points(backward, prepared, batch, rows)), batch)
        return points < _WORTH * _seconds(lambda: stem.whole(batch), batch)

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


def _seconds(call: Callable[[], Any], like: Tensor) -> float:
    """The fastest of three runs after a first one."""
    times = []
    for _ in range(4):
        wait(like)
        began = time.perf_counter()
        call()
        wait(like)
        times.append(time.perf_counter() - began)
    return min(times[1:])

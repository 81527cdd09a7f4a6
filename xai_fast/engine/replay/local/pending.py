"""Whole maps on their way to the steps that re-run them: patches of any groups, until there are enough for a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from xai_fast.core.indices import joined, part

from ...plan import unless_full
from .replay import Group, Replay


class Pending:
    """Collects whole maps of patches from any groups until there are enough for a batch."""

    def __init__(self, replay: Replay, size: int, total: int, kept: Mapping[int, Any]) -> None:
        self._replay, self._kept, self._left = replay, kept, total
        self._most, self._rows = size, []
        self._filled = 0
        self._maps: dict[int, Tensor] = {}

    def take(
        self, group: Group, patches: Mapping[int, Any], place: Tensor, sample: Tensor, rows: Tensor
    ) -> Iterator[tuple[Tensor, Any]]:
        """Pastes patches, and answers for every batch that is full; `place`: which of the group's boxes rows have."""
        start = 0
        while start < len(rows):
            if not self._maps:
                self._maps = self._replay.empty(min(self._most, self._left), self._kept)
                self._size = min(self._most, self._left)
            stop = min(start + self._size - self._filled, len(rows))
            some, room = slice(start, stop), slice(self._filled, self._filled + stop - start)
            self._replay.paste(
                group, place[some], {n: p[some] for n, p in patches.items()}, sample[some], self._kept,
                {n: m[room] for n, m in self._maps.items()},
            )  # fmt: skip
            self._rows.append(part(rows, start, stop))
            self._filled += stop - start
            start = stop
            if self._filled == self._size:
                yield from self.rest()

    def rest(self) -> Iterator[tuple[Tensor, Any]]:
        """Answers for what has been collected."""
        if self._filled:
            maps = {number: value[: self._filled] for number, value in self._maps.items()}
            rows = joined(self._rows)
            self._maps, self._rows, self._filled = {}, [], 0
            self._left -= len(rows)
            yield from self._finished(rows, maps)

    def _finished(self, rows: Tensor, maps: Mapping[int, Tensor]) -> Iterator[tuple[Tensor, Any]]:
        """The answers, in halves where memory runs out."""
        raw = unless_full(self._replay.finish, maps)
        if raw is not None:
            yield rows, raw
            return
        if len(rows) == 1:
            raise MemoryError("the whole maps of a single row do not fit into memory")
        self._most = half = -(-len(rows) // 2)
        for start, stop in ((0, half), (half, len(rows))):
            few = {number: value[start:stop] for number, value in maps.items()}
            yield from self._finished(part(rows, start, stop), few)

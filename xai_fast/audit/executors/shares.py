"""Who works on which shard: handed out one by one, and again where whoever had one is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

TRIES = 3
"""Workers that may be lost with one shard before it is given up: it may be what ends them."""


@dataclass
class Shares:
    """The shards of a run among workers, in the order of their numbers.

    A worker holds what it asked for until it says that it is done; it asks when it decodes the first image of a shard,
    so that what is held is bounded by the images that it decodes ahead.
    """

    waiting: deque[int] = field(default_factory=deque)
    held: dict[int, list[int]] = field(default_factory=dict)
    given_up: list[int] = field(default_factory=list)
    _losses: dict[int, int] = field(default_factory=dict)
    _news: list[tuple[int, list[str]]] = field(default_factory=list)

    def begin(self, indexes: Iterable[int]) -> None:
        """Shards that are missing."""
        self.waiting.extend(indexes)

    def ask(self, worker: int) -> int | None:
        """The next shard for a worker; None where none is left to begin."""
        if not self.waiting:
            return None
        index = self.waiting.popleft()
        self.held.setdefault(worker, []).append(index)
        return index

    def done(self, worker: int, index: int, statuses: list[str]) -> None:
        """A worker has written a shard whose images ended so."""
        if index in self.held.get(worker, ()):  # else it was taken for lost meanwhile
            self.held[worker].remove(index)
            self._news.append((index, statuses))

    def ended(self, worker: int) -> None:
        """A worker asks for no more; what it did not write, another process works on, or has written."""
        self.held.pop(worker, None)

    def lost(self, worker: int) -> list[int]:
        """A worker is gone; what it held is handed out again, and returned. Only its first was in work."""
        held = self.held.pop(worker, [])
        for index in held[:1]:
            self._losses[index] = self._losses.get(index, 0) + 1
        again = [index for index in held if self._losses.get(index, 0) < TRIES]
        self.given_up += [index for index in held if index not in again]
        self.waiting.extendleft(reversed(again))
        return held

    def news(self) -> tuple[list[tuple[int, list[str]]], int, int]:
        """Shards written since this was asked last, with their images' statuses; how many wait, and are held."""
        found, self._news = self._news, []
        return found, len(self.waiting), sum(map(len, self.held.values()))

    def lost_for_good(self) -> list[int]:
        """Shards with which too many workers were lost."""
        return sorted(self.given_up)

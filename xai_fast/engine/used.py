"""What of the prepared was used when, how many bytes it holds, and what has to go where that is too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xai_fast.core.memory import give_back
from xai_fast.core.prepared import Prepared
from xai_fast.core.sharing import held

Shape = tuple[int, ...]
Key = tuple[frozenset[str], bool, bool]  # layers that are looked at, halves, compiled
_TOGETHER = 2  # shapes prepared or forgotten, for which giving memory back is worth a hundredth of preparing them
_COUNTED_CALLS = 3  # calls after which what was made holds no more than it does


@dataclass
class Use:
    """What was used when, and what it holds: per prepared model and input shape, the last used last."""

    _bytes: dict[tuple[Key, Shape], dict[int, int]] = field(default_factory=dict)
    _counted: dict[tuple[Key, Shape], tuple[int, int]] = field(default_factory=dict)
    _now: set[tuple[Key, Shape]] = field(default_factory=set)
    _changes: int = 0

    def clear(self) -> None:
        """Forgets all of it."""
        for facts in (self._bytes, self._counted, self._now):
            facts.clear()

    def note(self, key: Key, shape: Shape) -> None:
        """It is used in this call."""
        self._changes += (key, shape) not in self._bytes
        self._bytes[key, shape] = self._bytes.pop((key, shape), {})
        self._now.add((key, shape))

    def too_much(self, prepared: Mapping[Key, Prepared], limit: int) -> list[tuple[Key, Shape]]:
        """What has to go, so that the rest holds no more than `limit` bytes; nothing that this call has used."""
        for key, shape in self._now:
            if key in prepared:
                self._count(key, shape, prepared[key])
        used, self._now = self._now, set()
        kept: dict[int, int] = {}
        total, gone = 0, []
        for entry in reversed(self._bytes):
            new = {place: size for place, size in self._bytes[entry].items() if place not in kept}
            total += sum(new.values())
            if entry[0] not in prepared or (total > limit and entry not in used):
                gone.append(entry)
                total -= sum(new.values())
            else:
                kept.update(new)
        for entry in gone:
            del self._bytes[entry]
            self._counted.pop(entry, None)
        self._changes += len(gone)
        return [entry for entry in gone if entry[0] in prepared]

    def tidy(self) -> None:
        """Gives back what preparing and forgetting left between blocks in use, once there are several shapes.

        After each of a ResNet-18 a hundred megabytes, which no count of ours shows.
        """
        if self._changes >= _TOGETHER:
            self._changes = 0
            give_back()

    def _count(self, key: Key, shape: Shape, prepared: Prepared) -> None:
        # Weights are packed while rows run, mostly in the first calls after something was made.
        captured = prepared.captured.get(shape)
        made = prepared.shelves(shape).made + (captured.grown if captured is not None else 0)
        before, calls = self._counted.get((key, shape), (-1, 0))
        calls = calls + 1 if made == before else 0
        self._counted[key, shape] = (made, calls)
        if calls < _COUNTED_CALLS:
            parts = (captured, prepared.shelves(shape))
            self._bytes[key, shape] = held(*parts, *([prepared.module] if prepared.copied else ()))

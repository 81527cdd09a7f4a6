"""What is made of a prepared model, by kind: each is declared once, with its types, beside the class that is kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Shelf(Generic[K, V]):
    """One kind of thing that is made of a prepared model for inputs of one shape, and kept with it.

    Attributes:
        name: what lies there, for people.
        most: how many are kept per shape, the last used; None for all.
    """

    name: str
    most: int | None = None


@dataclass
class Shelves:
    """What was made of one prepared model for inputs of one shape.

    Attributes:
        made: how often something was made, which tells whether what this holds has grown.
    """

    made: int = 0
    _kept: dict[Shelf[Any, Any], dict[Any, Any]] = field(default_factory=dict)

    def get(self, shelf: Shelf[K, V], key: K) -> V | None:
        """What lies there under a key; None where nothing does."""
        kept: dict[K, V] = self._kept.get(shelf, {})
        if key not in kept:
            return None
        kept[key] = kept.pop(key)  # the last used come last
        return kept[key]

    def put(self, shelf: Shelf[K, V], key: K, value: V) -> V:
        """Keeps a value, and lets go of what was not used for longest where that is one too many."""
        kept: dict[K, V] = self._kept.setdefault(shelf, {})
        kept.pop(key, None)
        while shelf.most is not None and len(kept) >= shelf.most:
            kept.pop(next(iter(kept)))
        kept[key] = value
        self.made += 1
        return value

    def find(self, shelf: Shelf[K, V], key: K, make: Callable[[], V]) -> V:
        """What lies there under a key, made now where nothing does."""
        found = self.get(shelf, key)
        return self.put(shelf, key, make()) if found is None else found

    def all(self, shelf: Shelf[K, V]) -> Iterator[V]:
        """Everything of one kind, the last used last."""
        yield from self._kept.get(shelf, {}).values()

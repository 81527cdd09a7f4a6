"""Has the caller's model changed since it was prepared? Answered at the speed of memory, without keeping it alive."""

from __future__ import annotations

import weakref
from collections.abc import Collection

from torch import nn

from .copies import unwrapped
from .snapshot import Path, Snapshot
from .tensor_bytes import TensorBytes


class Fingerprint:
    """What a prepared copy depends on: modules, hooks, Python attributes, and every byte of every tensor.

    Of what tensors contain see `TensorBytes`.

    Args:
        model: a module; what distributes or compiles it is looked through.
        ignoring: paths in it (of `Snapshot.changes`) that do not count.
    """

    def __init__(self, model: nn.Module, ignoring: Collection[Path] = ()) -> None:
        inside = unwrapped(model)
        self._inside, self._ignoring = weakref.ref(inside), frozenset(ignoring)
        self._snapshot = Snapshot(inside, self._ignoring)
        self._bytes = TensorBytes(self._snapshot.tensors(inside) or [])

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is still what this fingerprint was taken of."""
        inside = unwrapped(model)
        if inside is not self._inside():
            return False
        found = self._snapshot.tensors(inside)
        return found is not None and self._bytes.same(found)

    def ignoring(self, model: nn.Module, paths: Collection[Path]) -> Fingerprint:
        """A fingerprint of `model` as it is now, on which these paths have no influence either; itself without any."""
        return self if self._ignoring.issuperset(paths) else Fingerprint(model, self._ignoring.union(paths))

    def moved(self, model: nn.Module) -> frozenset[Path]:
        """Where Python attributes of `model` are other ones than when this fingerprint was taken."""
        return self._snapshot.changes(unwrapped(model))

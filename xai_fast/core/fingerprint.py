"""Has the caller's model changed since it was prepared? Answered at the speed of memory, without keeping it alive."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.ops.byte_hash import hash_dense

from .copies import unwrapped
from .snapshot import Path, Snapshot


class Fingerprint:
    """What a prepared copy depends on: modules, hooks, Python attributes, and every byte of every tensor.

    Of tensors 64 bits are kept and not a second copy: a single changed number always shows, other changes all but once
    in 2^64.

    Args:
        model: a module; what distributes or compiles it is looked through.
        ignoring: paths in it (of `Snapshot.changes`) that do not count.
    """

    def __init__(self, model: nn.Module, ignoring: Collection[Path] = ()) -> None:
        inside = unwrapped(model)
        self._inside, self._ignoring = weakref.ref(inside), frozenset(ignoring)
        self._snapshot = Snapshot(inside, self._ignoring)
        self._hashes = _hashes(self._snapshot.tensors(inside) or [])

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is still what this fingerprint was taken of."""
        inside = unwrapped(model)
        if inside is not self._inside():
            return False
        found = self._snapshot.tensors(inside)
        return found is not None and torch.equal(_hashes(found), self._hashes)

    def ignoring(self, model: nn.Module, paths: Collection[Path]) -> Fingerprint:
        """A fingerprint of `model` as it is now, on which these paths have no influence either; itself without any."""
        return self if self._ignoring.issuperset(paths) else Fingerprint(model, self._ignoring.union(paths))

    def moved(self, model: nn.Module) -> frozenset[Path]:
        """Where Python attributes of `model` are other ones than when this fingerprint was taken."""
        return self._snapshot.changes(unwrapped(model))


def _hashes(found: list[Any]) -> Tensor:
    """A hash per tensor, on the CPU, in an order that depends on their devices alone."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in found:
        if isinstance(tensor, Tensor):
            by_device.setdefault(tensor.device, []).append(tensor)
    hashes = [hash_dense(tensors).cpu() for tensors in by_device.values()]
    return torch.cat(hashes) if hashes else torch.empty(0, dtype=torch.int64)

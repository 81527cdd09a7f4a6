"""What some tensors contain, to the byte, without a second copy of it."""

from __future__ import annotations

from array import array
from typing import Any

import torch
from torch import Tensor

from xai_fast.ops.byte_hash import hash_dense, hash_memory

from .written import Watch, cannot_watch


class TensorBytes:
    """64 bits per tensor: a single changed number always shows, other changes all but once in 2^64.

    Memory that was the same twice is watched from then on, where the system tells what was written, and read again
    only when something was.

    Args:
        found: tensors, plain and dense, among other objects that keep their memory.
    """

    def __init__(self, found: list[Any]) -> None:
        self._hashes = _hashes(found)
        self._steady = False  # whether they were the same when they were last read
        self._watched: _Watched | None = None

    def same(self, found: list[Any]) -> bool:
        """Whether they contain what they did, given in the same order."""
        spans, in_vain = _spans(found), self._watched is not None
        if self._watched is not None and self._watched.same(spans):
            return True
        # To watch what is written again and again would cost whoever writes it, for nothing.
        watching = self._steady and not in_vain and cannot_watch() is None
        self._watched = _Watched(spans) if spans and watching else None  # begins before what is there is read
        equal = torch.equal(_hashes(found), self._hashes)
        self._steady = equal and not in_vain
        if not equal:
            self._watched = None
        return equal


class _Watched:
    """Memory whose pages are watched, and whose remaining bytes are known."""

    def __init__(self, spans: array[int]) -> None:
        self._spans, self._watch = spans, Watch(spans)
        self._rest = hash_memory(self._watch.rest)

    def same(self, spans: array[int] | None) -> bool:
        """Whether these are the same places, and nothing was written there."""
        if spans != self._spans or self._watch.written():
            return False
        return torch.equal(hash_memory(self._watch.rest), self._rest)


def _spans(found: list[Any]) -> array[int] | None:
    """Where their memory is; None where some of it is on a device."""
    spans = array("q")
    for tensor in found:
        if isinstance(tensor, Tensor):
            if tensor.device.type != "cpu":
                return None
            spans.extend((tensor.data_ptr(), tensor.nbytes))
    return spans


def _hashes(found: list[Any]) -> Tensor:
    """A hash per tensor, on the CPU, in an order that depends on their devices alone."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in found:
        if isinstance(tensor, Tensor):
            by_device.setdefault(tensor.device, []).append(tensor)
    hashes = [hash_dense(tensors).cpu() for tensors in by_device.values()]
    return torch.cat(hashes) if hashes else torch.empty(0, dtype=torch.int64)

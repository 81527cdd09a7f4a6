"""One call at a time for one model, whichever engines, threads and forks of the process ask."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .copies import unwrapped


class Turn:
    """The lock of one model.

    Attributes:
        interrupted: how often the process was forked while another thread had its turn: what that thread was about to
            do to the model's copies it has not finished here, and never will.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.interrupted = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Waits until no other thread has its turn; a thread that has it may take it again."""
        with self._lock:
            yield

    def renew(self) -> None:
        """After a fork: the thread that had its turn, if it is another, is not here to end it."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock, self.interrupted = threading.RLock(), self.interrupted + 1


_turns: weakref.WeakKeyDictionary[Any, Turn] = weakref.WeakKeyDictionary()
_registry = threading.Lock()


def turn_of(model: Any) -> Turn:
    """The lock of a module, or of the object whose method a callable is; of its own where that cannot be told."""
    owner = unwrapped(model) if isinstance(model, nn.Module) else getattr(model, "__self__", model)
    with _registry:
        try:
            return _turns.setdefault(owner, Turn())
        except TypeError:  # unhashable, or without weak references
            return Turn()


def _after_fork() -> None:
    global _registry
    _registry = threading.Lock()
    for turn in list(_turns.values()):
        turn.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

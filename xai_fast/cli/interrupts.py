"""Ctrl-C and the signals that end a process, as one exception at a time that a run can end by in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # the exit code
_AT_ONCE = 1.0  # seconds in which a signal that comes again means the same as the first
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupts:
    """Whether somebody wants the run to stop; while `postponed`, the exception waits until the block has ended."""

    def __init__(self) -> None:
        self.came = False
        self._last = -_AT_ONCE
        self._holding = False

    def handle(self, *_: Any) -> None:
        """Raises KeyboardInterrupt, which is what Python itself makes of Ctrl-C."""
        self.came = True
        now = time.monotonic()
        again, self._last = now - self._last < _AT_ONCE, now
        if not self._holding and not again:
            raise KeyboardInterrupt

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """What is done inside is done to its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False


@contextmanager
def stopping() -> Iterator[Interrupts]:
    """Signals that end a process raise KeyboardInterrupt inside; those that are ignored stay so (nohup, background)."""
    state = Interrupts()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python does not let anybody ask for signals
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, state.handle)
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

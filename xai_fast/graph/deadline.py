"""How long making a model ready may take: asked between steps; what is only faster and not done by then is left out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

SECONDS = 60.0  # of which a ResNet-50 needs two
_FORWARDS = 100.0  # as many plain forwards are allowed to models that take long themselves
REASON = "making the model ready took too long, and what only saves time later was left out"


@dataclass
class _Deadline:
    until: float


_current: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def limited() -> Iterator[None]:
    """One preparation: the time runs from here, or from where another around it began."""
    if _current.get() is not None:
        yield
        return
    token = _current.set(_Deadline(time.perf_counter() + SECONDS))
    try:
        yield
    finally:
        _current.reset(token)


def out_of_time() -> bool:
    """Whether the time of this preparation is over; never outside of one."""
    deadline = _current.get()
    return deadline is not None and time.perf_counter() > deadline.until


def takes(seconds: float) -> None:
    """Says how long one plain forward takes: a slow model has longer."""
    deadline = _current.get()
    if deadline is not None:
        deadline.until += _FORWARDS * seconds

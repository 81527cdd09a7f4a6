"""Whether a call is worth the engine, or the library's own code is done before a model would be prepared for it.

How long the library takes is estimated from what one row of the model runs, which was counted when it was watched: so
the same call on the same model goes the same way whatever else the machine does.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .calls import Uncovered
from .watched import Answer

ROWS = 8  # of light methods, after which preparing a model pays
LOADING = 2  # and after which loading the engine does
_ENGINE = "xai_fast.engine"
# About the seconds that an operation takes whatever its size, and a floating-point operation in float32.
OPERATION, FLOP = 8e-6, 1e-11
BACKWARD = 2.0  # forwards that a backward takes, which libraries take by the parameters as well
# Seconds of one core that a prepared call may take on a network of three layers (7 to 36 ms), that such a network takes
# to be prepared (25 to 230 ms), and that loading the engine takes.
CALL, PREPARING, FIRST = 0.03, 0.25, 1.0

_LITTLE = "little work on a small model: the library is done before the engine would be"
_FEW = "few rows on a model that was hardly asked about before: preparing it would not pay"


@dataclass(frozen=True)
class Work:
    """What a library asks of a model in one call.

    Attributes:
        rows: that the model answers.
        asks: in how many forwards.
        gradients: whether each is followed by a backward.
    """

    rows: int
    asks: int = 1
    gradients: bool = False

    def seconds(self, answer: Answer) -> float:
        """How long that takes about, for a model that does this for a row."""
        once = self.asks * answer.operations * OPERATION + self.rows * answer.flops * FLOP
        return once * (1 + BACKWARD * self.gradients)


@dataclass
class _Seen:
    """What a model was asked for so far."""

    rows: int = 0
    seconds: float = 0.0


_SEEN: weakref.WeakKeyDictionary[Any, _Seen] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()
_always = 0


@contextmanager
def always() -> Iterator[None]:
    """While it is open every call is worth it, in all threads: for tests."""
    global _always
    _always += 1
    try:
        yield
    finally:
        _always -= 1


def pays(model: Any, rows: int, *, unprepared: bool = False) -> None:
    """Refuses a call of a light method, of so many rows, on a model that was hardly asked about before.

    Args:
        model: that is asked.
        rows: of this call.
        unprepared: whether the engine is the faster one on a plain copy already: it only has to be loaded.

    Raises:
        Uncovered: preparing the model, or loading the engine, would take longer than the call.
    """
    with _LOCK:
        seen = _SEEN.setdefault(model, _Seen())
        seen.rows += rows
        few = seen.rows <= (LOADING if unprepared else ROWS)
    if few and not _always and not (unprepared and _ENGINE in sys.modules):
        raise Uncovered(_FEW)


def enough(model: Any, answer: Answer, work: Work, *, unprepared: bool = False) -> None:
    """Refuses calls that take the library hardly any time, and the first of those on a small model.

    Args:
        model: that is asked.
        answer: what it does for a row.
        work: of this call.
        unprepared: whether the engine is the faster one on a plain copy already.

    Raises:
        Uncovered: it is one.
    """
    seconds, earned = work.seconds(answer), PREPARING if _ENGINE in sys.modules else FIRST
    with _LOCK:
        seen = _SEEN.setdefault(model, _Seen())
        seen.seconds += seconds
        little = seconds < CALL or (seen.seconds < earned and not unprepared)
    if little and not _always:
        raise Uncovered(_LITTLE)

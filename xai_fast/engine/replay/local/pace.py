"""Whether a plan is as fast as it was thought to be, told by the rows of real calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_SLOWER = 1.5  # times what whole runs take, from which on a plan is dropped: set-up and noise stay below
_JUDGED_SECONDS = 0.1  # of rows that tell


@dataclass
class Pace:
    """Whether a plan is as fast as was thought, told by the rows of real calls.

    Attributes:
        whole: seconds of a whole run of a row.
        drop: is told why the plan is too slow.
    """

    whole: float
    drop: Callable[[str], None]
    _rows: int = 0
    _seconds: float = 0.0
    _chunks: int = 0

    def too_slow(self, rows: int, seconds: float) -> bool:
        """Takes the time of some rows; whether the rest had better run whole. The first rows pay for the set-up."""
        self._chunks += 1
        if self._chunks == 1:
            return False
        self._rows, self._seconds = self._rows + rows, self._seconds + seconds
        slower = self._seconds / self._rows / max(self.whole, 1e-9)
        if self._seconds < _JUDGED_SECONDS or slower < _SLOWER:
            return False
        self.drop(f"it was taken and turned out {slower:.1f} times as slow as whole runs, against the estimate")
        return True

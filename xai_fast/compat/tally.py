"""What ran where: calls that the engine served, calls that were passed on to the library and why, and their time."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Calls of one method with one outcome.

    Attributes:
        method: the library's class.
        reason: why the library's own code ran; "" where the engine served them.
        calls: how many.
        seconds: in all of them together.
        note: what there is to know about the results, such as an error of the library's that they repeat.
    """

    method: str
    reason: str
    calls: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Calls since the start, or since `reset`; printed, it is a table.

    Attributes:
        rows: one per method and outcome, those that the engine served first.
    """

    rows: tuple[Row, ...]

    @property
    def accelerated(self) -> int:
        """Calls that the engine served."""
        return sum(row.calls for row in self.rows if not row.reason)

    @property
    def passed_on(self) -> int:
        """Calls in which the library's own code ran."""
        return sum(row.calls for row in self.rows if row.reason)

    def __str__(self) -> str:
        seconds = sum(row.seconds for row in self.rows)
        lines = [f"xai_fast: {self.accelerated} calls accelerated, {self.passed_on} passed on, {seconds:.2f} s"]
        wide = max((len(row.method) for row in self.rows), default=0)
        for row in self.rows:
            outcome = f"passed on: {row.reason}" if row.reason else "accelerated"
            outcome += f" ({row.note})" if row.note else ""
            lines.append(f"  {row.method:{wide}}  {row.calls:5d}  {row.seconds:8.2f} s  {outcome}")
        return "\n".join(lines)


class Tally:
    """Counts calls; threads may count at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, str, str], tuple[int, float]] = defaultdict(lambda: (0, 0.0))

    def add(self, method: str, reason: str, seconds: float, note: str = "") -> None:
        """One more call."""
        with self._lock:
            calls, before = self._counts[method, reason, note]
            self._counts[method, reason, note] = calls + 1, before + seconds

    def reset(self) -> None:
        """Counts from 0 again."""
        with self._lock:
            self._counts.clear()

    def report(self) -> Report:
        """What was counted."""
        with self._lock:
            rows = [Row(key[0], key[1], *value, key[2]) for key, value in self._counts.items()]
        return Report(tuple(sorted(rows, key=lambda row: (bool(row.reason), row.method, -row.calls, row.reason))))


TALLY = Tally()

"""Progress over model rows: a bar, a callable of the user's, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any


class Progress:
    """Reports rows done out of `total`, as a context manager.

    Args:
        report: False for silence, True for a bar on the terminal, or a callable (done, total).
        total: model rows that the call will run.
    """

    def __init__(self, report: bool | Callable[[int, int], Any], total: int) -> None:
        self._report, self._total, self._done = report, total, 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self._report is True:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("model rows", total=self._total)
        return self

    def expect(self, rows: int) -> None:
        """More rows turned out to be needed: those of a layer's changes, once the layer has been seen."""
        self._total += rows
        if self._bar is not None:
            self._bar.update(self._task, total=self._total)

    def advance(self, rows: int) -> None:
        """Takes note of `rows` more rows."""
        self._done += rows
        if self._bar is not None:
            self._bar.advance(self._task, rows)
        elif callable(self._report):
            self._report(self._done, self._total)

    def complete(self) -> None:
        """No more rows will come: those that turned out not to be needed no longer count."""
        if self._done < self._total:
            self.expect(self._done - self._total)
            self.advance(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

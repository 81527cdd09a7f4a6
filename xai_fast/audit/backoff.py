"""How large batches are along a shard: halved from where memory ran out on, which a resume repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

LEFT_OUT = -1


@dataclass
class Backoff:
    """From which row of a shard on batches are halved how often; none where memory was enough.

    Attributes:
        steps: (row, how often), by rising rows; each holds until the next. `LEFT_OUT` where nothing made it fit.
    """

    steps: list[tuple[int, int]] = field(default_factory=list)

    @staticmethod
    def of(found: Sequence[Sequence[int]]) -> Backoff:
        """From JSON."""
        return Backoff([(int(row), int(times)) for row, times in found])

    def at(self, row: int) -> int:
        """How often batches that begin at a row are halved."""
        return next((times for start, times in reversed(self.steps) if start <= row), 0)

    def halve(self, row: int) -> None:
        """Memory ran out in the batch that begins at a row: halved once more from there on.

        What was noted of later rows, by a run that was killed, holds where it says more.
        """
        times = self.at(row) + 1
        after = [
            (start, often if often == LEFT_OUT else max(often, times)) for start, often in self.steps if start > row
        ]
        self.steps = [*self._before(row), (row, times), *after]

    def leave_out(self, row: int) -> None:
        """An image does not fit however small the batch; what follows is as large as ever."""
        after = [step for step in self.steps if step[0] > row]
        forgiven = [] if after and after[0][0] == row + 1 else [(row + 1, 0)]
        self.steps = [*self._before(row), (row, LEFT_OUT), *forgiven, *after]

    def _before(self, row: int) -> list[tuple[int, int]]:
        return [step for step in self.steps if step[0] < row]

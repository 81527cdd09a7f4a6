"""The scores of the rows at hand, read from the model's raw output by the call's target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from xai_fast.core.indices import both, part
from xai_fast.core.objective import Objective
from xai_fast.core.prepared import widened


class RowScores:
    """Reads the scores (rows, K) of the rows at hand from the model's raw output.

    Args:
        objective: what is asked for.
        sample: (rows,) the input that each row is a variant of.
        learn: takes the raw output and `sample`, where these are clean inputs, which settle open classes.
    """

    def __init__(
        self, objective: Objective, sample: Tensor, learn: Callable[[Any, Tensor], None] | None = None
    ) -> None:
        self._objective, self._sample, self._learn = objective, sample, learn

    def repeated(self, times: int) -> RowScores:
        """The scores of all the rows, that many times over; what was left open is settled."""
        return RowScores(self._objective, both(lambda sample: sample.repeat(times), self._sample))

    @property
    def of_first(self) -> RowScores:
        """The scores of the first row."""
        return RowScores(self._objective, part(self._sample, 0, 1))

    def __call__(self, raw: Any) -> Tensor:
        """(rows, K)."""
        raw = widened(raw)
        if self._learn is not None:
            self._learn(raw, self._sample)
            self._objective.settle(raw, self._sample)
        return self._objective(raw, self._sample)

    @property
    def rescales(self) -> bool:
        """Whether `rescaled` is anything else than the scores, or these have to be read first."""
        return self._learn is not None or self._objective.rescales

    def rescaled(self, raw: Any, references: Any) -> Tensor:
        """What has the rescale rule's multipliers against `references` as gradients (rows, K) by the raw output."""
        return self._objective.rescaled(raw, references, self._sample)

    def columns(self, raw: Any) -> Tensor | None:
        """LongTensor (rows, K): which columns of the raw output the scores are, where they are nothing else."""
        if self._learn is not None:
            self(raw)  # settles classes that were left open
        return self._objective.columns(raw, self._sample)

"""What a rule is: how multipliers of a step's output become multipliers of what the step read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from .pairs import Pairs

Parts = Sequence[Tensor | None]  # per tensor of a value: one, or one for each member of a tuple


class Rule(ABC):
    """One step, backwards.

    Attributes:
        keeps: values that the forward has to keep for it.
    """

    keeps: tuple[int, ...] = ()

    @abstractmethod
    def back(self, gradient: Parts, pairs: Pairs) -> dict[int, Parts]:
        """The multipliers of the values that the step reads.

        Args:
            gradient: of what the step makes, (P * K * b, ...) per tensor, where a row has b entries.
            pairs: for which it runs.
        """

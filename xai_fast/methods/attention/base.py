"""What methods of attention share: the tokens they read, and how shares of tokens become a map over the input."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from xai_fast.core.layers import TokenPlaces
from xai_fast.engine import Recipe
from xai_fast.engine.evaluate import Answers, Evaluate
from xai_fast.engine.reducers.cam import resized
from xai_fast.engine.reducers.clean import CleanFormula
from xai_fast.methods.base import AbstractMethod, Resolution


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractAttentionMethod(AbstractMethod):
    """A map over the grid of a transformer's tokens.

    Args:
        model: a module or an `Engine`.
        grid: the extents (h, w) of the tokens' grid, where that is not clear from how they answer to the input; the
            other tokens (class, register) stand before it.
    """

    grid: tuple[int, ...] | None = None

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """One question about the clean inputs."""
        places = self.engine.tokens(inputs, self.grid)
        size = None if resolution == "native" else tuple(inputs.shape[2:])

        def maps(_sample: Tensor, answers: Answers) -> Tensor:
            shares = self._shares(answers, places)  # (rows, K, T)
            cells = shares[..., places.grid.first : places.grid.first + prod(places.grid.shape)]
            own = cells.unflatten(-1, places.grid.shape)
            return resized(own.expand(-1, answers.scores.shape[1], *places.grid.shape), size).unsqueeze(2)

        return Recipe(reduce=CleanFormula(maps), clean=self._question(inputs))

    @property
    def signed(self) -> bool:
        """No value is negative."""
        return False

    @abstractmethod
    def _question(self, inputs: Tensor) -> Evaluate:
        """What is asked about the inputs."""

    @abstractmethod
    def _shares(self, answers: Answers, places: TokenPlaces) -> Tensor:
        """What each token is given, (rows, K, T) or (rows, 1, T)."""

    def _check(self) -> None:
        object.__setattr__(self, "grid", checked_extents(self.grid))


def checked_extents(grid: Any) -> tuple[int, ...] | None:
    """The extents of a grid of tokens, or None.

    Raises:
        TypeError, ValueError: they are none.
    """
    from xai_fast.core.layers import checked_grid

    extents = checked_grid(grid)
    if callable(extents):
        raise TypeError("`grid` came as a function, and here there is no layer's output to give it; give (h, w)")
    return extents

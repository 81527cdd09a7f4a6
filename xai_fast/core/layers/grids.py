"""How a layer's activation is read as a grid over the input: which axes, or which tokens, hold the positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, cast

import torch
from torch import Tensor

# What a caller may say about a layer: the grid's extents, or a function from the activation to (N, C, *s).
Grid = tuple[int, ...] | Callable[[Tensor], Tensor] | None


class Reading(Protocol):
    """Finds the grid in an activation, or in its gradient; what it returns is a view where it can be one."""

    def __call__(self, activation: Tensor) -> Tensor:
        """(N, C, *s) from the activation (N, ...) as its layer returns it."""
        ...

    def channel_axis(self, activation: Tensor) -> int:
        """Which axis of the activation, as its layer returns it, holds the channels."""
        ...

    def scale(self, activation: Tensor, factors: Tensor) -> None:
        """Multiplies the positions (N, *s) of an activation (N, ...) in place; what is no position stays."""
        ...


@dataclass(frozen=True)
class Axes:
    """(N, C, *s), or another place of the channels.

    Attributes:
        channels: their axis.
    """

    channels: int = 1

    def __call__(self, activation: Tensor) -> Tensor:
        """Moves the channels."""
        return activation.movedim(self.channels, 1)

    def channel_axis(self, activation: Tensor) -> int:
        """As found."""
        return self.channels

    def scale(self, activation: Tensor, factors: Tensor) -> None:
        """Through a view."""
        self(activation).mul_(factors[:, None])


@dataclass(frozen=True)
class Tokens:
    """(N, T, C): a run of tokens that lie row by row on a grid.

    Attributes:
        first: how many tokens (class, register) stand before the grid's.
        shape: of the grid; tokens behind it (detection, query) belong to no position.
    """

    first: int
    shape: tuple[int, ...]

    def __call__(self, activation: Tensor) -> Tensor:
        """The grid's tokens."""
        grid = activation[:, self.first : self.first + prod(self.shape)]
        return grid.transpose(1, 2).unflatten(2, self.shape)

    def channel_axis(self, activation: Tensor) -> int:
        """The last."""
        return 2

    def scale(self, activation: Tensor, factors: Tensor) -> None:
        """Through a view."""
        self(activation).mul_(factors[:, None])


@dataclass(frozen=True)
class Flat:
    """(N, C): a layer without positions, read as one cell.

    Attributes:
        axes: how many axes the cell has.
    """

    axes: int

    def __call__(self, activation: Tensor) -> Tensor:
        """One cell."""
        return activation.view(*activation.shape, *[1] * self.axes)

    def channel_axis(self, activation: Tensor) -> int:
        """The last."""
        return 1

    def scale(self, activation: Tensor, factors: Tensor) -> None:
        """All of it."""
        activation.mul_(factors.view(-1, 1))


@dataclass(frozen=True)
class Function:
    """The caller's own function from the activation to (N, C, *s).

    Attributes:
        function: it is applied to gradients as well, so it only picks and rearranges.
        axes: how many axes the grid must have.
    """

    function: Callable[[Tensor], Tensor]
    axes: int

    def __call__(self, activation: Tensor) -> Tensor:
        """What the function returns.

        Raises:
            ValueError: it is no (N, C, *s).
        """
        grid: Any = self.function(activation)
        if not isinstance(grid, Tensor) or grid.ndim != self.axes + 2 or len(grid) != len(activation):
            came = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
            fits = f"({len(activation)}, C{', h, w' if self.axes == 2 else ', s' * self.axes})"
            raise ValueError(f"`grid` made {came} of an activation {tuple(activation.shape)}; return {fits}")
        return grid

    def channel_axis(self, activation: Tensor) -> int:
        """The axis along which the grid's channels lie.

        Raises:
            ValueError: there is none.
        """
        sources, shape = self._sources(activation), activation.shape[1:]
        places = torch.unravel_index(sources, shape)
        count = torch.arange(len(sources)).view(-1, *[1] * self.axes)
        for axis, place in enumerate(places):
            if shape[axis] == len(sources) and bool((place == count).all()):
                return axis + 1
        raise ValueError("`grid` spreads channels over several axes of the layer; give a function that keeps one")

    def scale(self, activation: Tensor, factors: Tensor) -> None:
        """Element by element."""
        sources = self._sources(activation).to(activation.device)
        every = activation.new_ones(len(activation), activation[0].numel())
        cells = factors.to(every).flatten(1)[:, None].expand(-1, len(sources), -1)
        every[:, sources.flatten()] = cells.flatten(1)
        activation.mul_(every.view(activation.shape))

    def _sources(self, activation: Tensor) -> Tensor:
        """LongTensor (C, *s): which element of a row each element of the grid is."""
        shape = activation.shape[1:]
        numbers = torch.arange(shape.numel(), dtype=torch.float64)
        sources = self(numbers.view(1, *shape))[0].round().long()
        probe = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        inside = sources.numel() and int(sources.min()) >= 0 and int(sources.max()) < len(numbers)
        if not inside or not torch.equal(self(probe)[0], probe.flatten()[sources]):
            raise ValueError(
                "`grid` computes new numbers, and what changes the layer needs to know where each comes from; give a "
                "function that only picks and rearranges (slices, transpose, unflatten)"
            )
        return sources


def checked_grid(grid: Any) -> Grid:
    """What the caller says about the grid, in normal form.

    Raises:
        TypeError, ValueError: it is neither extents, nor a function, nor None.
    """
    fits = "the extents of the layer's grid, as (h, w), or a function from its activation to (N, C, h, w)"
    if grid is None:
        return None
    if callable(grid):
        return cast("Callable[[Tensor], Tensor]", grid)
    if not isinstance(grid, tuple | list | torch.Size) or not grid:
        raise TypeError(f"`grid` came as {grid!r}; give {fits}")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in grid):
        raise ValueError(f"`grid` came as {tuple(grid)!r}; give {fits}, none of them below 1")
    return tuple(grid)


def candidates(shape: Sequence[int], axes: int, grid: tuple[int, ...] | None = None) -> list[Axes]:
    """The readings of an activation (N, *shape) that keeps the axes of the input, of which at most one is right.

    Args:
        shape: of the activation of one row.
        axes: how many spatial axes the input has.
        grid: extents that are given.
    """
    if len(shape) != axes + 1:
        return []
    places = [(Axes(1), shape[1:]), (Axes(axes + 1), shape[:-1])]
    return [reading for reading, extents in places if grid is None or tuple(extents) == grid]

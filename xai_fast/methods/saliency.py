"""Saliency: how steeply does the score change with each input element?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from xai_fast.core.layers import Grid, Layer
from xai_fast.engine import Recipe
from xai_fast.engine.reducers.on_grid import read_maps
from xai_fast.engine.samplers.path import Source

from .gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Saliency(AbstractGradientMethod):
    r"""The gradient of the score by the input (Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034, section 3).

    .. math:: A_i = \left|\frac{\partial f}{\partial x_i}\right| \quad\text{(without the bars where absolute=False)}

    Differs from the paper, which takes the maximum over channels: channels are kept unless `channels` says otherwise,
    as in captum.

    Values are in units of the score per unit of input; where `absolute`, they are not negative and have no direction.

    Args:
        model: a module, a callable or an `Engine`.
        layer: None for the input; a layer's name or module gives the gradient by that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.
        absolute: whether the sign is dropped.
        channels: None keeps them, (N, C, *S); "max", "mean" or "sum" fold them into one, (N, 1, *S), after the
            absolute value. At a layer they are the axis that answers to no place of the input, be it the last.

    Returns (`attribute`): (N, C, *S) or (N, 1, *S); at a layer, in the layer's shape or on its grid.

    Cost: one row forward and one backward per input; K targets share the forward.
    """

    layer: Layer | None = None
    grid: Grid = None
    absolute: bool = True
    channels: Literal["max", "mean", "sum"] | None = None

    @property
    def signed(self) -> bool:
        """Not, where absolute."""
        return not self.absolute

    @property
    def linear(self) -> bool:
        """Whether neither a sign is dropped nor a maximum taken, and the gradient is the input's."""
        return not self.absolute and self.channels != "max" and self.layer is None

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """The gradient of each sample."""
        if self.layer is None or self.channels is None:
            return self._formula(source, inputs, lambda _at, gradient: self._folded(gradient, 2))
        (reading,) = self.engine.readings(self.layers(inputs), inputs, self.grid, flat=True)
        if self.grid is not None:
            return self._formula(source, inputs, lambda _at, gradient: self._folded(read_maps(gradient, reading), 2))
        return self._formula(source, inputs, lambda at, gradient: self._folded(gradient, 1 + reading.channel_axis(at)))

    def on_grid(self, recipe: Recipe, inputs: Tensor) -> Recipe:
        """As the others; what folds channels has read the grid before, to find them."""
        return super().on_grid(recipe, inputs) if self.channels is None else recipe

    def _folded(self, gradient: Tensor, axis: int) -> Tensor:
        """(rows, K, C, ...) by the settings, the channels at `axis`."""
        gradient = gradient.abs() if self.absolute else gradient
        match self.channels:
            case "max":
                return gradient.amax(axis, keepdim=True)
            case "mean":
                return gradient.mean(axis, keepdim=True)
            case "sum":
                return gradient.sum(axis, keepdim=True)
            case _:
                return gradient

    def _check(self) -> None:
        super()._check()
        if self.channels not in (None, "max", "mean", "sum"):
            raise ValueError(f'`channels` came as {self.channels!r}; give None, "max", "mean" or "sum"')

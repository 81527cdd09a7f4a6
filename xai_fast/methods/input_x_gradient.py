"""Input times gradient: what each input element contributes to the score, to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.core.layers import Grid, Layer
from xai_fast.engine.samplers.path import Source

from .gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InputXGradient(AbstractGradientMethod):
    r"""The input times the gradient of the score (Shrikumar et al. 2016, arXiv:1605.01713, section 3).

    .. math:: A_i = x_i \, \frac{\partial f}{\partial x_i}

    No deviation from the paper. At a layer the activation takes the place of the input, which captum calls
    `LayerGradientXActivation`.

    Values are in units of the score, positive where the element supports the target. They sum to f(x) only for models
    that are linear without bias, or piecewise so between 0 and x.

    Args:
        model: a module, a callable or an `Engine`.
        layer: None for the input; a layer's name or module, for that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.

    Returns (`attribute`): (N, C, *S); at a layer, in the layer's shape or on its grid.

    Cost: one row forward and one backward per input; K targets share the forward.
    """

    layer: Layer | None = None
    grid: Grid = None

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """The gradient of each sample, times the sample."""
        return self._formula(source, inputs, lambda at, gradient: at[:, None] * gradient)

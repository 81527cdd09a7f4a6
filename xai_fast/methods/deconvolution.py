"""Deconvolution: what a deconvolutional network projects back to the input from the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.core.layers import Grid, Layer
from xai_fast.engine.samplers.path import Source

from .gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Deconvolution(AbstractGradientMethod):
    r"""The gradient with every ReLU applied to what passes backward (Zeiler and Fergus 2014, arXiv:1311.2901, 2.1).

    .. math:: R^{l}_i = [R^{l+1}_i > 0]\,R^{l+1}_i \quad\text{at each ReLU, the gradient elsewhere}

    Max pooling passes to the place of the maximum, which are the paper's switches; other layers pass their gradient.
    Every ReLU counts, whether a module, a function, in place or used several times; captum knows modules only.

    Values have the gradient's units, positive where more of the element excites the path to the score. A model in which
    no ReLU runs gives the plain gradient, with a warning.

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
        """The projection of each sample's score."""
        return self._formula(source, inputs, lambda _at, gradient: gradient, ask="deconvolution")

"""Guided backpropagation: the gradient that only what is active and speaks for the score may pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.core.layers import Grid, Layer
from xai_fast.engine.samplers.path import Source

from .gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GuidedBackprop(AbstractGradientMethod):
    r"""The gradient in which every ReLU drops negative parts (Springenberg et al. 2014, arXiv:1412.6806, section 3.4).

    .. math:: R^{l}_i = [x^l_i > 0]\,[R^{l+1}_i > 0]\,R^{l+1}_i \quad\text{at each ReLU, the gradient elsewhere}

    No deviation from the paper. Every ReLU counts, whether a module, a function, in place or used several times; captum
    knows modules only. Other activations (GELU, SiLU) pass their plain gradient. The map is known to change little
    when the upper layers are drawn anew (Adebayo et al. 2018, arXiv:1810.03292): it shows what the input holds more
    than why the class was chosen.

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
        """The guided gradient of each sample."""
        return self._formula(source, inputs, lambda _at, gradient: gradient, ask="guided")

"""AttnLRP: relevance handed back through a transformer, attention included, from the score to the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from xai_fast.core.layers import Grid, Layer
from xai_fast.engine.evaluate.relevance import Relevance
from xai_fast.engine.samplers.path import Source
from xai_fast.methods.gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttnLRP(AbstractGradientMethod):
    r"""Layer-wise relevance propagation for transformers (Achtibat et al. 2024, arXiv:2402.05602, section 3).

    .. math:: R_i = x_i \, \widetilde{\frac{\partial f}{\partial x_i}}

    The input times a gradient in which every step follows its rule: a softmax its own gradient; a product of two things
    that depend on the input, as of queries with keys and of attention with values, half to each; a normalisation
    (layer, group, RMS, unit length) divides by a constant; an elementwise function (GELU, SiLU, tanh) has f(x) / x for
    its slope; linear layers, sums and what moves numbers have their gradient, so that biases, position embeddings and
    class tokens keep what they add. The rules end with the model's output: of a target that is a function of it, the
    plain gradient goes in.

    Values are in units of the score, positive where the element supports the target. They add up to the score less what
    biases, embeddings and softmaxes keep. Two deviations: linear layers follow the 0-rule, and the paper takes the
    gamma-rule for vision transformers, which is less noisy and not a gradient; and the epsilon that would keep
    denominators from 0 is 0, as nothing is divided by what may be 0.

    Args:
        model: a module, a callable or an `Engine`.
        layer: None for the input; a layer's name or module, for that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.

    Returns (`attribute`): (N, C, *S); at a layer, in the layer's shape or on its grid.

    Cost: one row forward and one backward per input, attention step by step; K targets share the forward.

    Raises:
        ValueError: something in the forward is neither linear nor has a rule, such as a sigmoid gate, a division by
            what depends on the input, or a function of the user's own.
    """

    layer: Layer | None = None
    grid: Grid = None

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """The gradient by the rules of each sample, times the sample."""
        evaluate = Relevance(self.layers(inputs))
        return self._formula(source, inputs, lambda at, gradient: at[:, None] * gradient, evaluate)

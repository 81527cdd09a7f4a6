"""Maps without a class of their own: of the whole predicted distribution, and of what a layer attends to at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from xai_fast.core.mixed_objectives import Expectation
from xai_fast.core.objective import Objective

from .base import AbstractFormulaCAM, AbstractWeightedCAM
from .formulas import FORMULAS


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClassAttention(AbstractWeightedCAM):
    r"""The class maps of all classes at once, weighted by how likely the model holds each.

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k \alpha_k A_k\Bigr), \qquad
              \alpha_k = \frac{1}{|S|} \sum_s \frac{\partial}{\partial A_{k,s}} \sum_c p_c f_c

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the scores' mean under the predicted distribution p, which is
    that of the clean input and held fixed.

    Values are not negative, in units of the score. The target changes nothing; `Explanation.score` is that mean.
    Arguments, shapes, cost and errors are those of `GradCAM`.
    """

    formula: ClassVar = FORMULAS["GradCAM"]

    def _objective(self, *about: Any) -> Objective:
        return Expectation(*about)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PositionAttention(AbstractFormulaCAM):
    r"""How strongly a layer fires at each position (Zagoruyko and Komodakis 2017, arXiv:1612.03928, section 3.1).

    .. math:: L = \sum_k A_k^2

    The paper's sum of squares, not normalised.

    Values are not negative, in units of the activation squared. The target changes nothing, and `signed` neither.
    Further arguments and shapes are those of `EigenCAM`. Cost: one row forward per input; no gradient.
    """

    formula: ClassVar = FORMULAS["PositionAttention"]

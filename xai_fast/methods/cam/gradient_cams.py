"""CAMs that differ from Grad-CAM in how gradients become weights: one forward, one backward, a formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .base import AbstractWeightedCAM
from .formulas import FORMULAS


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAMPlusPlus(AbstractWeightedCAM):
    r"""Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063, equations 5, 7 and 19).

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k A_k \sum_s \alpha_{k,s}\, \mathrm{ReLU}(g_{k,s})\Bigr), \qquad
              \alpha_{k,s} = \frac{g_{k,s}^2}{2 g_{k,s}^2 + g_{k,s}^3 \sum_t A_{k,t}}

    with :math:`g = \partial f / \partial A`. The fraction is computed as :math:`1 / (2 + g \sum_t A_t)`, which is the
    same wherever g is not 0 and needs no ε (grad-cam adds 1e-6, which outweighs small gradients; in torchcam 0.5 the
    division by the denominator has no effect). As in the paper the class score stands for its exponential's
    derivatives.

    Values are not negative, in units of the activation, larger where a position supports the target; the paper's
    scaling to [0, 1] is left out.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto", a name, a module, or a list of them; as for `GradCAM`.
        grid: where it is not clear how a layer lies over the input: (h, w), or a function to (N, C, h, w).
        fuse: how the maps of several layers become one, each finished and resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        signed: the map without its outer ReLU.

    Returns (`attribute`): (N, 1, H, W) at input resolution; with `resolution="native"` (N, 1, h, w) on the layer's
    grid.

    Cost: one row forward and one backward per input, six with `aug_smooth`; K targets share the forward.

    Raises:
        ValueError: an unknown layer (before the model runs), or one whose output is no grid.
    """

    formula: ClassVar = FORMULAS["GradCAMPlusPlus"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class XGradCAM(AbstractWeightedCAM):
    r"""XGrad-CAM (Fu et al. 2020, arXiv:2008.02312, equation 8).

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k w_k A_k\Bigr), \qquad
              w_k = \sum_s \frac{A_{k,s}}{\sum_t A_{k,t}} \frac{\partial f}{\partial A_{k,s}}

    A channel whose activations sum to 0 has the weight 0 (grad-cam adds 1e-7 to the sum instead).

    Values are not negative, in units of the score, larger where a position supports the target. Arguments, shapes,
    cost and errors are those of `GradCAMPlusPlus`.
    """

    formula: ClassVar = FORMULAS["XGradCAM"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HiResCAM(AbstractWeightedCAM):
    r"""HiResCAM (Draelos and Carin 2020, arXiv:2011.08891, equation 5): gradients are not averaged over positions.

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k \frac{\partial f}{\partial A_k} \odot A_k\Bigr)

    Behind a linear layer that reads positions apart it shows only positions that the score was computed from. The paper
    has the ReLU for pictures alone: `signed=True` gives its map, which at a layer with nothing but a linear function
    behind it sums to the score less its bias.

    Values are not negative, in units of the score, larger where a position supports the target. Arguments, shapes,
    cost and errors are those of `GradCAMPlusPlus`.
    """

    formula: ClassVar = FORMULAS["HiResCAM"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LayerCAM(AbstractWeightedCAM):
    r"""LayerCAM (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, equations 5 and 6), made for shallow layers too.

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k \mathrm{ReLU}\Bigl(\frac{\partial f}{\partial A_k}\Bigr) \odot A_k\Bigr)

    The maps of several layers are fused as they are; the paper scales those of shallow layers by tanh(2 L / max L).

    Values are not negative, in units of the score, larger where a position supports the target. Arguments, shapes,
    cost and errors are those of `GradCAMPlusPlus`.
    """

    formula: ClassVar = FORMULAS["LayerCAM"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAMElementWise(AbstractWeightedCAM):
    r"""Element-wise Grad-CAM: the positive products of gradient and activation, summed over channels.

    .. math:: L = \sum_k \mathrm{ReLU}\Bigl(\frac{\partial f}{\partial A_k} \odot A_k\Bigr)

    As in grad-cam 1.5, which names no paper; `HiResCAM` has the ReLU outside of the sum. So `signed=True` changes
    nothing but under `eigen_smooth`.

    Values are not negative, in units of the score, larger where a position supports the target. Arguments, shapes,
    cost and errors are those of `GradCAMPlusPlus`.
    """

    formula: ClassVar = FORMULAS["GradCAMElementWise"]


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ShapleyCAM(AbstractWeightedCAM):
    r"""ShapleyCAM (Cai 2025, arXiv:2501.06261): a channel's Shapley value, to the second order.

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k w_k A_k\Bigr), \qquad
              w_k = \frac{1}{|S|} \sum_s \Bigl(\frac{\partial f}{\partial A} - \tfrac12 H A\Bigr)_{k,s}

    where H is the Hessian of the score by the layer's output. Behind the layer of a piecewise linear network H is 0,
    and the map is Grad-CAM's; the paper takes a smooth function of the scores (`xf.targets.probability()`), or a
    network with smooth activations.

    Values are not negative, in units of the score, larger where a position supports the target. Arguments, shapes and
    errors are those of `GradCAMPlusPlus`.

    Cost: one row forward and two backward per input, through the model's own forward.
    """

    formula: ClassVar = FORMULAS["ShapleyCAM"]

"""Grad-CAM: where does the class's evidence lie, at the resolution of a late layer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .base import AbstractWeightedCAM
from .formulas import FORMULAS


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradCAM(AbstractWeightedCAM):
    r"""Gradient-weighted class activation map (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2).

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k \alpha_k A_k\Bigr), \qquad
              \alpha_k = \frac{1}{|S|} \sum_{s} \frac{\partial f}{\partial A_{k,s}}

    The ReLU is the paper's (captum leaves it out by default); the map is not scaled to [0, 1] (torchcam and grad-cam
    do). Upsampling is bilinear with `align_corners=False`; the paper names no kind.

    Values are not negative, in units of the score, larger where a position supports the target.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto" (the deepest map that the score depends on, several of a detector's pyramid), a name ("relu:2":
            its second call; "norm:input": what goes in), a module, or a list. In a transformer that reads a class
            token that is the input norm of the last block.
        grid: where it is not clear from how a layer answers to the input (channels first or last, tokens of any kind):
            its extents (h, w), or a function from (N, ...) to (N, C, h, w).
        fuse: how the maps of several layers become one, each rectified and resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        signed: the map without its ReLU.

    Returns (`attribute`): (N, 1, H, W) at input resolution; with `resolution="native"` (N, 1, h, w) on the layer's own
    grid (the largest one of several).

    Cost: one row forward and one backward per input, six with `aug_smooth`; K targets share the forward. The backward
    stops at the first of the layers; behind a mean over positions and a linear layer there is none, because there the
    weights are the linear layer's own.

    Raises:
        ValueError: an unknown layer (before the model runs), or one whose output is no grid.
    """

    formula: ClassVar = FORMULAS["GradCAM"]

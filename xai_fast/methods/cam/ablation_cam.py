"""Ablation-CAM: how far does the score fall when a channel of a late layer is silenced?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from xai_fast.engine.samplers.layer import LayerChange, SilencedChannels

from .base import AbstractWeightedCAM
from .formulas import FORMULAS


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AblationCAM(AbstractWeightedCAM):
    r"""Class activation map weighted by ablation (Desai and Ramaswamy 2020, WACV, equations 4 and 5).

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k w_k A_k\Bigr), \qquad w_k = f(A) - f(A \text{ with } A_k = 0)

    Needs no gradient. The paper divides w_k by f(A), which scales the map as a whole, and turns it over where the
    score is negative; here the weights stay in units of the score. grad-cam does divide, and puts large negative
    numbers in place of zero where a layer's output can be negative; the paper's ablation is zero everywhere, and so is
    this one. In a transformer the channel is silenced in every token.

    Values are not negative, in units of the score times those of the activation, larger where a position supports the
    target. The map is not scaled to [0, 1].

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto" (the deepest map that the score depends on, several of a detector's pyramid), a name ("relu:2":
            its second call; "norm:input": what goes in), a module, or a list.
        grid: where it is not clear from how a layer answers to the input (channels first or last, tokens of any kind):
            its extents (h, w), or a function from (N, ...) to (N, C, h, w).
        fuse: how the maps of several layers become one, each rectified and resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        signed: the map without its ReLU.

    Returns (`attribute`): (N, 1, H, W) at input resolution; with `resolution="native"` (N, 1, h, w) on the layer's own
    grid (the largest one of several).

    Cost: 1 + C rows forward per input, layer and pass, where C is the number of channels. What precedes the layer runs
    once per pass; behind per-channel pooling and a linear layer the first linear layer of all C rows is one product.

    Raises:
        ValueError: an unknown layer (before the model runs), or one whose output is no grid.
    """

    formula: ClassVar = FORMULAS["AblationCAM"]

    def _change(self) -> LayerChange:
        return SilencedChannels()

"""CAMs that put something around a formula: a linear layer's weights, other classes, several depths, chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from xai_fast.core.copies import unwrapped
from xai_fast.core.mixed_objectives import Contrast
from xai_fast.core.objective import Objective
from xai_fast.core.random import uniforms
from xai_fast.engine.reducers.cam import Draw, Fuse, Grid
from xai_fast.methods.checks import check_count, check_seed

from .base import AbstractWeightedCAM
from .formulas import BY_GRADIENT, FORMULAS, Formula, classic, scaled_to_one
from .scales import scales_of


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CAM(AbstractWeightedCAM):
    r"""The class activation map (Zhou et al. 2016, arXiv:1512.04150, equations 1 and 2).

    .. math:: L_s = \sum_k w_{k} A_{k,s}, \qquad f = b + \sum_s L_s

    where w are the class's weights in the linear layer behind the mean of A over positions, each divided by the number
    of positions (the paper's pooling is a sum). Where the linear layer reads all of A flattened, w depends on the
    position. Either way the weights are the score's gradient. There is no ReLU, as in the paper.

    Values are signed, in units of the score: on the layer's own grid the map sums to the score less its bias.

    Args:
        model: a module that ends in one linear layer.
        layer: "auto", a name or a module: what the mean is taken of.
        signed: False rectifies the map.

    Further arguments and shapes are those of `GradCAM`. The target is a class.

    Cost: one row forward per input, and one backward through what follows the layer; none behind a captured mean and
    linear layer. A GPU is waited for once per batch of inputs, whose gradients say whether a linear layer follows.

    Raises:
        ValueError: what follows the layer is something else, or the target is; once the clean input has run.
    """

    signed: bool = True

    def _formula(self) -> Formula:
        linear = [
            module.weight.detach().flatten(1)
            for module in unwrapped(cast("nn.Module", self.engine.model)).modules()
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
        ]
        return classic(linear)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FinerCAM(AbstractWeightedCAM):
    r"""Finer-CAM (Zhang et al. 2025, arXiv:2501.11309): what tells the class from those most like it.

    .. math:: L = \text{the CAM of}\ f_c - \gamma \frac{1}{T} \sum_{t=1}^T f_{d_t}

    where d are the T classes whose scores are closest to that of c on the clean input. The comparisons are weighed
    alike, as in the paper and in torchcam; grad-cam weighs them by their probabilities and takes γ = 1.

    Values are not negative, in units of the score (of its formula), larger where a position supports the target and not
    the others. `Explanation.score` is the difference.

    Args:
        formula: whose CAM it is: "GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", ...
        gamma: how much the other classes count.
        n_references: T; fewer where the model has fewer other classes.

    Further arguments, shapes and cost are those of `GradCAM`.

    Raises:
        TypeError: the target is a function.
        ValueError: the model has one output.
    """

    formula: str = "GradCAM"  # type: ignore[assignment]  # by its name here
    gamma: float = 0.6
    n_references: int = 3

    def _formula(self) -> Formula:
        return FORMULAS[self.formula]

    def _objective(self, *about: Any) -> Objective:
        return Contrast(*about, gamma=float(self.gamma), n_references=self.n_references)

    def _check(self) -> None:
        super()._check()
        _check_formula(self.formula)
        check_count(self.n_references, "n_references")
        number = isinstance(self.gamma, int | float) and not isinstance(self.gamma, bool)
        if not (number and 0 <= self.gamma < math.inf):
            raise ValueError(f"`gamma` came as {self.gamma!r}; give a number, at least 0")


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RefineCAM(AbstractWeightedCAM):
    r"""RefineCAM (arXiv:2605.14641): the product of the maps of several depths, each brought to [0, 1].

    .. math:: L = \prod_l \mathrm{up}\Bigl(\frac{L_l - \min L_l}{\max L_l - \min L_l}\Bigr)

    As torchcam 0.5 has it, without its scaling of the product. A map that is flat is 0. grad-cam 1.5.7 resizes first.

    Values lie in [0, 1], without a unit, larger where a position supports the target at every depth.

    Args:
        layer: a list of at least two; "auto" takes the deepest maps of the last three sizes.
        formula: of each map: "GradCAMPlusPlus" (the paper's), "LayerCAM", "GradCAM", ...

    Further arguments and shapes are those of `GradCAM`, without `fuse` and `signed`. Cost: one row forward and one
    backward per input, whatever the number of layers.

    Raises:
        ValueError: a single layer.
    """

    formula: str = "GradCAMPlusPlus"  # type: ignore[assignment]  # by its name here

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layers given, or the deepest of the last three sizes."""
        return super().layers(inputs) if self.layer != "auto" else scales_of(self.engine, inputs)

    def _formula(self) -> Formula:
        return FORMULAS[self.formula]

    def _draw(self) -> Draw:
        return scaled_to_one(super()._draw())

    def _fuse(self) -> Fuse:
        return "product"

    def _check(self) -> None:
        super()._check()
        _check_formula(self.formula)
        if self.layer != "auto" and not isinstance(self.layer, list):
            raise ValueError(f'`layer` came as {self.layer!r}; give a list of at least two layers, or "auto"')
        if self.signed or self.fuse != "max":
            raise ValueError("`signed` and `fuse` have no meaning for a product of maps in [0, 1]; leave them out")


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RandomCAM(AbstractWeightedCAM):
    r"""A control: channels weighted at random. What an explanation shows and this does too is no finding.

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k w_k A_k\Bigr), \qquad w_k \sim \mathcal{U}(-1, 1)

    As in grad-cam, but drawn by (seed, sample id, layer), so that the map does not depend on batches; all targets and
    all passes of `aug_smooth` share the weights.

    Values are not negative, in units of the activation. The target changes nothing.

    Args:
        seed: of the weights.

    Further arguments and shapes are those of `GradCAM`. Cost: one row forward per input.
    """

    seed: int = 0

    def _formula(self) -> Formula:
        def weights(response: Grid) -> Tensor:
            keys, channels = response.keys, response.activation.shape[1]
            assert keys is not None
            drawn = 2 * uniforms(self.seed, keys, torch.full_like(keys, response.place), channels) - 1
            like = response.activation
            dtype = torch.promote_types(like.dtype, torch.float32)
            return drawn.to(like.device, dtype)[:, None].expand(-1, response.targets, -1)

        return Formula("activation", weights=weights)

    def _check(self) -> None:
        super()._check()
        check_seed(self.seed)


def _check_formula(name: Any) -> None:
    if name not in BY_GRADIENT:
        raise ValueError(f"`formula` came as {name!r}; give one of {', '.join(map(repr, BY_GRADIENT))}")

"""FullGrad: the input's share of the score, and that of every bias in the network, on one map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from xai_fast.core.copies import unwrapped
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import BiasResponse
from xai_fast.engine.reducers.cam import ClassActivation, planes
from xai_fast.engine.samplers.augmented import Augmented
from xai_fast.methods.base import AbstractMethod, Resolution

from .formulas import rescaled_products


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FullGrad(AbstractMethod):
    r"""The full-gradient saliency map (Srinivas and Fleuret 2019, arXiv:1905.00780, equation 5).

    .. math:: L = \sum_c \psi\Bigl(x_c \frac{\partial f}{\partial x_c}\Bigr) +
              \sum_l \sum_c \psi\Bigl(b^l_c \frac{\partial f}{\partial z^l_c}\Bigr)

    where ψ takes the magnitude, brings it to [0, 1] by its smallest and largest value, and resizes it bilinearly; l
    runs over all convolutions and batch normalisations of the caller's model with a bias, z is what they return. A
    batch normalisation's bias is β − μγ/σ. Each channel is brought to [0, 1] by itself, as the equation reads and
    grad-cam has it; the authors' own code scales a layer's channels together. A flat channel is 0. Resizing uses
    `align_corners=False`, and channels of one size are added up before it.

    Values are not negative, without a unit: every channel of every layer counts as much as any other.

    Args:
        model: a module or an `Engine`; a plain callable has no biases.
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.

    Returns (`attribute`): (N, 1, H, W); it has no other resolution.

    Cost: one row forward and one backward per input, six with `aug_smooth`, through the model's own forward, in which
    no batch normalisation is folded. Memory: the gradients of all those layers.

    Raises:
        TypeError: the model is a plain callable.
    """

    aug_smooth: bool = False

    @property
    def signed(self) -> bool:
        """Not: magnitudes are added up."""
        return False

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """One pass that looks at every bias."""
        biases = _biases(unwrapped(cast("nn.Module", self.engine.model)))
        variants = Augmented(inputs) if self.aug_smooth else None
        reduce = ClassActivation(
            planes(rescaled_products, relu=False),
            None,
            n_samples=len(inputs),
            size=tuple(inputs.shape[2:]),
            native=False,
            fuse="sum",
            variants=variants,
        )
        question = BiasResponse(biases)
        return Recipe(reduce, question, variants, question, unfolded=tuple(biases))

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        passes = 1 + (Augmented.PER_INPUT if self.aug_smooth else 0)
        return Cost(forwards=passes, backwards=passes)

    def _check(self) -> None:
        if not isinstance(self.engine.model, nn.Module) or isinstance(self.engine.model, torch.jit.ScriptModule):
            kind = type(self.engine.model).__name__
            raise TypeError(f"`model` came as {kind}, whose biases cannot be seen; give a torch.nn.Module")
        if not isinstance(self.aug_smooth, bool):
            raise ValueError(f"`aug_smooth` came as {self.aug_smooth!r}; give True or False")


@torch.no_grad()
def _biases(model: nn.Module) -> dict[str, Tensor]:
    """What every convolution and batch normalisation adds to each channel, by name; those that add nothing left out."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        part: Any = module
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            bias = -module.running_mean / (module.running_var + module.eps).sqrt()
            bias = bias if module.weight is None else bias * module.weight
            found[name] = bias if module.bias is None else bias + module.bias
        elif isinstance(module, _ConvNd | _BatchNorm) and part.bias is not None:
            found[name] = part.bias.detach().clone()
    return found

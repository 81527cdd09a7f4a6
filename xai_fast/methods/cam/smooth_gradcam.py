"""Smooth Grad-CAM++: Grad-CAM++ with gradients averaged over noisy copies of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import LayerActivation, LayerResponse
from xai_fast.engine.recipe import Sweep
from xai_fast.engine.reducers.cam_passes import SmoothedGradients
from xai_fast.engine.samplers.noisy import Noisy
from xai_fast.engine.samplers.passes import Passes, VariantsOfPasses
from xai_fast.methods.base import Resolution
from xai_fast.methods.checks import check_count, check_seed, check_sigma
from xai_fast.methods.gradient import in_single

from .base import AbstractWeightedCAM
from .formulas import FORMULAS


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SmoothGradCAMPlusPlus(AbstractWeightedCAM):
    r"""Smooth Grad-CAM++ (Omeiza et al. 2019, arXiv:1908.01224, equations 8 to 10).

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k w_k A_k\Bigr), \qquad
              w_k = \sum_s \frac{\overline{g^2}_{k,s}}{2\,\overline{g^2}_{k,s} + \overline{g^3}_{k,s} \sum_t A_{k,t}}
              \mathrm{ReLU}(\bar g_{k,s})

    with the means of the gradient g and of its powers over n noisy copies of the input, and A of the clean input. The
    numerator is that of Grad-CAM++, not the first derivative that the paper prints. (torchcam takes the gradient and
    the activation of the last noisy copy.) Noise is drawn as `SmoothGrad` draws it, keyed by (seed, sample id, draw).

    Values are not negative, in units of the activation, larger where a position supports the target.

    Args:
        n_samples: noisy copies per input, n.
        noise: σ as a share of the image's own range, largest less smallest value.
        relative: False: `noise` is σ itself, in the model's space.
        seed: of the draws.

    Further arguments and shapes are those of `GradCAM`.

    Cost: 1 + n rows forward and n backward per input, and pass of `aug_smooth`.
    """

    n_samples: int = 10
    noise: float = 0.15
    relative: bool = True
    seed: int = 0

    formula: ClassVar = FORMULAS["GradCAMPlusPlus"]

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The clean passes, then their noisy copies."""
        inputs = in_single(inputs)
        layers = self.layers(inputs)
        passes = Passes(inputs, self.aug_smooth)
        reduce = SmoothedGradients(
            self.n_samples,
            passes,
            self.engine.readings(layers, inputs, self.grid),
            native=resolution == "native",
            fuse=self._fuse(),
            eigen=self.eigen_smooth,
            relu=not self.signed,
        )
        question, swept = LayerResponse(layers), list[None]()

        def then(_scores: Tensor) -> Sweep | None:
            if swept:
                return None
            swept.append(None)
            ids = torch.zeros(len(inputs), dtype=torch.long) if sample_ids is None else sample_ids.cpu()
            of_passes = passes.sample_of(torch.arange(len(passes)))
            noisy = Noisy(passes.tensor(), self._sigma(inputs)[of_passes], self.n_samples, self.seed, ids[of_passes])
            return Sweep(VariantsOfPasses(noisy, passes), question, reduce.take)

        return Recipe(reduce, LayerActivation(layers), passes.variants(), question, then=then)

    def _sigma(self, inputs: Tensor) -> Tensor:
        """The noise's deviation (N,)."""
        if not self.relative:
            return torch.full((len(inputs),), float(self.noise), dtype=torch.float64)
        flat = inputs.detach().flatten(1)
        return (self.noise * (flat.amax(1) - flat.amin(1)).double()).cpu()

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        extra = 5 if self.aug_smooth else 0
        return Cost((1 + extra) * (1 + self.n_samples), (1 + extra) * self.n_samples + extra)

    def _check(self) -> None:
        super()._check()
        check_count(self.n_samples, "n_samples")
        check_sigma(self.noise)
        check_seed(self.seed)
        if not isinstance(self.relative, bool):
            raise ValueError(f"`relative` came as {self.relative!r}; give True or False")

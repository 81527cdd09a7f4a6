"""CAMs without gradients that show the input through each channel's map: Score-CAM and its smoothed kin."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from xai_fast.engine import Cost, Recipe
from xai_fast.engine.evaluate import LayerActivation, Score
from xai_fast.engine.recipe import Sweep
from xai_fast.engine.reducers.scored_channels import ScoredChannels
from xai_fast.engine.samplers.masked import Masked, Noise
from xai_fast.engine.samplers.passes import Passes, Picked, VariantsOfPasses
from xai_fast.methods.base import Resolution
from xai_fast.methods.checks import check_count, check_seed, check_sigma, check_tolerance
from xai_fast.methods.gradient import in_single

from .base import AbstractWeightedCAM
from .formulas import Formula


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AbstractScoreCAM(AbstractWeightedCAM):
    """ReLU(Σ_k softmax_k(s) A_k), where s_k is what the model says to the input seen through channel k.

    Args:
        seed: of what is drawn.
        tolerance: where the engine's mode is "turbo": see `ScoreCAM`.
    """

    seed: int = 0
    tolerance: float = 0.1

    formula: ClassVar = Formula("activation")

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The clean passes, then each of them through each of its channels."""
        inputs = in_single(inputs)
        layers = self.layers(inputs)
        self.engine.activations(layers, inputs.shape[1:])  # so that `cost` knows how many channels there are
        passes = Passes(inputs, self.aug_smooth)
        reduce = ScoredChannels(
            passes,
            self.engine.readings(layers, inputs, self.grid),
            native=resolution == "native",
            fuse=self._fuse(),
            eigen=self.eigen_smooth,
            relu=not self.signed,
        )
        ids = torch.zeros(len(inputs), dtype=torch.long) if sample_ids is None else sample_ids.cpu()
        swept: list[Masked] = []

        def then(_scores: Tensor) -> Sweep | None:
            if not swept:
                swept.append(self._masked(reduce, ids))
                reduce.expect(swept[0], self.engine.settings.mode, self.tolerance, self.seed, ids)
            picked = reduce.more()
            if picked is None:
                return None
            some = Picked(swept[0], picked)
            return Sweep(
                VariantsOfPasses(some, passes), Score(), lambda own, answers: reduce.take(some.of(own), answers)
            )

        question = LayerActivation(layers)
        return Recipe(reduce, question, passes.variants(), question, then=then)

    @abstractmethod
    def _masked(self, reduce: ScoredChannels, ids: Tensor) -> Masked:
        """The rows that are scored, once the passes' activations are known."""

    def _rows_per_channel(self) -> int:
        return 1

    def _check(self) -> None:
        super()._check()
        check_seed(self.seed)
        check_tolerance(self.tolerance)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
        layers = self.layers(noise)
        readings = self.engine.readings(layers, noise, self.grid)
        activations = self.engine.activations(layers, shape)
        channels = sum(read(one).shape[1] for read, one in zip(readings, activations, strict=True))
        return Cost(forwards=(6 if self.aug_smooth else 1) * (1 + channels * self._rows_per_channel()))


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ScoreCAM(AbstractScoreCAM):
    r"""Score-CAM (Wang et al. 2020, arXiv:1910.01279, algorithm 1).

    .. math:: L = \mathrm{ReLU}\Bigl(\sum_k \alpha_k A_k\Bigr), \qquad
              \alpha = \mathrm{softmax}_k\, f(x \odot H_k), \quad H_k = \mathrm{up}\Bigl(\frac{A_k - \min A_k}{\max A_k
              - \min A_k}\Bigr)

    Needs no gradient. The score of no input, which the paper subtracts before the softmax, cancels there. A channel is
    brought to [0, 1] on the layer's grid and then resized, as in torchcam; the paper names the other order, which
    differs by how near a pixel's centre comes to a cell's. A channel that is the same everywhere shows nothing.
    Channels whose maps are equal are shown once, which changes no weight.

    Values are not negative, in units of the activation, larger where a position supports the target.

    Args:
        model: a module or an `Engine`; a plain callable has no layers.
        layer: "auto", a name, a module, or a list of them; as for `GradCAM`.
        grid: where it is not clear how a layer lies over the input: (h, w), or a function to (N, C, h, w).
        fuse: how the maps of several layers become one, each finished and resized first: "max" or "mean".
        aug_smooth: mean over six passes: the input and its mirror image, times 0.9, 1 and 1.1.
        eigen_smooth: the first principal component of the weighted activations instead of their sum.
        signed: the map without its ReLU.
        seed: of which channels are shown first, where the engine's mode is "turbo"; keyed by (seed, sample id).
        tolerance: where the engine's mode is "turbo": a random part of the channels is shown, then half as many that
            seem to weigh most, and no further ones once the standard error of every target's map, in its L2 norm, is at
            most this share of the map's. Looked at after 64 random channels, and each time their number has doubled.
            What the others would have scored is said by a
            ridge regression on their maps, and what that misses of those that were shown, each left out of it, corrects
            the sums (the difference estimator of survey sampling). Not with `eigen_smooth`, whose error is not known.

    Returns (`attribute`): (N, 1, H, W) at input resolution; with `resolution="native"` (N, 1, h, w) on the layer's own
    grid. In "turbo" calling the method also gives `standard_error` of that shape: of the map before its ReLU.

    Cost: 1 + C rows forward per input, layer and pass, where C is the number of channels, fewer where some are equal.
    Memory: the layer's activations; masks are made where a batch is written.

    Raises:
        ValueError: an unknown layer (before the model runs), or one whose output is no grid.
    """

    def _masked(self, reduce: ScoredChannels, ids: Tensor) -> Masked:
        return Masked(reduce.passes, reduce.masks())


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SSCAM(AbstractScoreCAM):
    r"""SS-CAM (Wang et al. 2020, arXiv:2006.14255): Score-CAM with noise on the masks.

    .. math:: \alpha = \mathrm{softmax}_k\, \frac1n \sum_{j=1}^n f\bigl(x \odot (H_k + \sigma \varepsilon_{k,j})\bigr)

    with H of `ScoreCAM` and standard normal numbers :math:`\varepsilon` at the input's resolution, one for all channels
    of the input, keyed by (seed, sample id, channel, draw). (torchcam brings the mask to [0, 1] again behind the
    noise.)

    Values are not negative, in units of the activation.

    Args:
        n_samples: noisy masks per channel, n.
        noise: σ, in units of the mask.
        seed: of the draws, and as in `ScoreCAM`.

    Further arguments and shapes are those of `ScoreCAM`. Cost: 1 + n C rows forward per input, layer and pass.
    """

    n_samples: int = 35
    noise: float = 2.0

    def _masked(self, reduce: ScoredChannels, ids: Tensor) -> Masked:
        noise = Noise(float(self.noise), self.seed, ids)
        return Masked(reduce.passes, reduce.masks(apart=True), self.n_samples, noise=noise)

    def _rows_per_channel(self) -> int:
        return self.n_samples

    def _check(self) -> None:
        super()._check()
        check_count(self.n_samples, "n_samples")
        check_sigma(self.noise)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ISCAM(AbstractScoreCAM):
    r"""IS-CAM (Naidu et al. 2020, arXiv:2010.03023): Score-CAM integrated over how strongly the mask shows the input.

    .. math:: \alpha = \mathrm{softmax}_k\, \frac1n \sum_{j=1}^n f\Bigl(\frac{j}{n}\, x \odot H_k\Bigr)

    with H of `ScoreCAM`. (torchcam's shares add up on the way and exceed 1.)

    Values are not negative, in units of the activation.

    Args:
        n_samples: points of the integral, n.

    Further arguments and shapes are those of `ScoreCAM`. Cost: 1 + n C rows forward per input, layer and pass, fewer
    where some channels are equal.
    """

    n_samples: int = 10

    def _masked(self, reduce: ScoredChannels, ids: Tensor) -> Masked:
        return Masked(reduce.passes, reduce.masks(), self.n_samples, fading=True)

    def _rows_per_channel(self) -> int:
        return self.n_samples

    def _check(self) -> None:
        super()._check()
        check_count(self.n_samples, "n_samples")

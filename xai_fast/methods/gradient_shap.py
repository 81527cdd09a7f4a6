"""GradientSHAP: integrated gradients averaged over many baselines, by random points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from xai_fast.core.indices import both
from xai_fast.core.layers import Grid, Layer
from xai_fast.engine import Cost
from xai_fast.engine.evaluate import Answers, InputGradient, LayerBetween
from xai_fast.engine.samplers.path import RandomPoints, Source
from xai_fast.engine.samplers.references import References
from xai_fast.images.baselines import Baseline

from .checks import check_baselines, check_count, check_seed, check_sigma
from .gradient import AbstractGradientMethod, Asked


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradientShap(AbstractGradientMethod):
    r"""Expected gradients (Lundberg and Lee 2017, arXiv:1705.07874; Erion et al. 2021, arXiv:1906.10670, equation 3).

    .. math:: A = \mathbb{E}_{b,\alpha}\bigl[(\tilde x - b) \odot \nabla f(b + \alpha (\tilde x - b))\bigr], \qquad
              \alpha \sim U(0, 1),\ b \sim \text{baselines},\ \tilde x = x + \sigma\varepsilon

    Draws are keyed by (seed, sample id, draw), so they do not depend on batches; captum and shap draw from NumPy's
    global generator. At a layer the gradient is taken there, at points between inputs, and the difference is that of
    the layer's outputs for x̃ and b, as in captum and shap.

    Values are in units of the score. They estimate numbers that sum to f(x) less the baselines' mean score; with one
    baseline that is what `IntegratedGradients` computes without chance.

    Args:
        model: a module, a callable or an `Engine`.
        layer: None for the input; a layer's name or module, for that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.
        baselines: (R, C, *S) reference inputs, each drawn with equal chance; or one baseline: a number or one per
            channel in the model's space, "image_mean", "blur", "black" or "white".
        n_samples: draws per input.
        noise: σ, standard deviation of Gaussian noise on the input, in its units.
        seed: of the draws.
        draws: the draws themselves in place of `seed`: positions α, float64 (N n_samples,), those of an input one after
            the other, and LongTensor (N n_samples,) of numbers of baselines.

    Returns (`attribute`): (N, C, *S); at a layer, in the layer's shape or on its grid.

    Cost: 1 + n_samples rows forward and n_samples backward per input, at a layer 1 + 3 n_samples forward; K targets
    share them. Memory does not grow with n_samples.

    Raises:
        ValueError: baselines that do not fit; before the model runs.
    """

    layer: Layer | None = None
    grid: Grid = None
    baselines: Baseline = 0.0
    n_samples: int = 50
    noise: float = 0.0
    seed: int = 0
    draws: tuple[Tensor, Tensor] | None = None

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """The gradient at drawn points between each sample and drawn baselines."""
        references = References(self.baselines, inputs, self.engine.preprocess)
        if self.draws is not None and len(self.draws[0]) != len(source) * self.n_samples:
            raise ValueError(f"`draws` hold {len(self.draws[0])} positions; give {len(source) * self.n_samples}")
        if self.draws is not None and not 0 <= int(self.draws[1].min()) <= int(self.draws[1].max()) < references.count:
            raise ValueError(f"`draws` hold numbers of baselines outside of 0 to {references.count - 1}")
        points = RandomPoints(source, references, self.n_samples, float(self.noise), self.seed, self.draws)
        layers = self.layers(inputs)

        def ends(rows: Tensor) -> tuple[Tensor, Tensor]:
            sample = torch.empty(len(rows), *inputs.shape[1:], dtype=inputs.dtype, device=inputs.device)
            points.write_ends(rows, sample)
            return sample, references.of(points.number_of(rows))

        def parts(rows: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
            if layers:
                response = answers.responses[0]
                assert response.reference is not None
                gradient, difference = response.gradient, response.activation - response.reference
            else:
                end, start = ends(rows)
                gradient, difference = answers.gradient, end - start
            assert gradient is not None
            return gradient * difference[:, None] / self.n_samples, both(points.source_of, rows)

        evaluate = LayerBetween(layers[0], ends) if layers else InputGradient()
        return Asked(points, evaluate, parts, None, self.n_samples)

    def per_sample(self, shape: tuple[int, ...]) -> Cost:
        """The points; at a layer also their ends."""
        each = 1 if self.layer is None else 3
        return Cost(forwards=each * self.n_samples, backwards=self.n_samples)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        rows = self.per_sample(shape)
        return Cost(1 + rows.forwards, rows.backwards)

    def _check(self) -> None:
        super()._check()
        check_baselines(self.baselines)
        check_count(self.n_samples, "n_samples")
        check_sigma(self.noise)
        check_seed(self.seed)
        _check_draws(self.draws)


def _check_draws(draws: Any) -> None:
    if draws is None:
        return
    fits = "give (positions float64 (N n_samples,), numbers of baselines LongTensor (N n_samples,)), or None"
    if not isinstance(draws, tuple) or len(draws) != 2 or not all(isinstance(one, Tensor) for one in draws):
        raise ValueError(f"`draws` came as {type(draws).__name__}; {fits}")
    positions, numbers = draws
    if positions.ndim != 1 or positions.shape != numbers.shape:
        raise ValueError(f"`draws` came in shapes {tuple(positions.shape)} and {tuple(numbers.shape)}; {fits}")
    if (positions.dtype, numbers.dtype) != (torch.float64, torch.long):
        raise ValueError(f"`draws` came as {positions.dtype} and {numbers.dtype}; {fits}")

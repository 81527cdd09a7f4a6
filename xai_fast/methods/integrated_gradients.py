"""Integrated gradients: the gradient averaged over the way from a baseline to the input, times that way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.core.layers import Grid, Layer
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.estimators.quadrature import QUADRATURES, quadrature
from xai_fast.engine.evaluate import Answers, InputGradient, LayerPath, Score, Summed
from xai_fast.engine.recipe import Sweep
from xai_fast.engine.reducers.adaptive import AdaptiveMaps
from xai_fast.engine.reducers.clean import CleanFormula
from xai_fast.engine.reducers.gap import WithGap
from xai_fast.engine.reducers.maps import SampleMaps, Stored
from xai_fast.engine.samplers.clean import Clean
from xai_fast.engine.samplers.path import PathPoints, Source
from xai_fast.images.baselines import Baseline, check_baseline, resolve_baseline

from .base import Resolution
from .checks import check_count, check_tolerance
from .gradient import AbstractGradientMethod, Asked, in_single, samples_of


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class IntegratedGradients(AbstractGradientMethod):
    r"""Integrated gradients along a straight path (Sundararajan, Taly and Yan 2017, arXiv:1703.01365, equation 1).

    .. math:: A_i = (x_i - b_i) \int_0^1 \frac{\partial f}{\partial x_i}\bigl(b + \alpha (x - b)\bigr)\, d\alpha

    The paper sums over equal steps ("right" here). Gauss-Legendre nodes, the default as in captum, are exact for
    smoother paths; the trapezoid's weights sum to 1 (captum's sum to 1 − 1/n). At a layer the path runs between what
    the layer returns for the baseline and for the input, everything beside the layer as for the input.

    Values are in units of the score and sum to f(x) − f(b) up to the quadrature's error, which is the explanation's
    `completeness_gap`. A small gap does not bound the error of the map.

    Args:
        model: a module, a callable or an `Engine`.
        layer: None for the input; a layer's name or module, for that layer's output, in its shape.
        grid: at a layer, how its map is read as (N, C, h, w): (h, w), or a function from (N, ...); None: as it lies.
        n_steps: points of the path, where `tolerance` is None.
        quadrature: "gausslegendre", "left", "right", "middle" or "trapezoid".
        baseline: where the path begins: a number or one per channel in the model's space, a tensor that broadcasts to
            the inputs, "image_mean", "blur", "black" or "white".
        tolerance: None takes n_steps. Otherwise points are added where the gradient changes until, for every target,
            the sum misses f(x) − f(b) by less than this share of it (of 1e-6 |f(x)| at the least) and the map's
            estimated error is at most min(4.7 %, sqrt(tolerance) / 2) of its L2 norm; `quadrature` then plays no part.
            At the input only.
        max_steps: points per path at the most, under a `tolerance` (rounded down where a last halving of all steps
            would not fit); a path that does not get there is warned of.

    Returns (`attribute`): (N, C, *S); at a layer, in the layer's shape or on its grid.

    Cost: n_steps + 2 rows forward and n_steps backward per input, at a layer n_steps + 3 forward; K targets share the
    forwards. Memory does not grow with n_steps: gradients are added up as they come, and the first layer of a captured
    model runs forward for the path's ends alone and backward once for all points that run together. Under a `tolerance`
    max_steps in place of n_steps is the bound; 8 points come first, and up to 127 gradients of one input are kept; a
    GPU is waited for once per level of points, whose gradients say where the next ones lie.

    Raises:
        ValueError: a baseline that does not fit; before the model runs.
    """

    layer: Layer | None = None
    grid: Grid = None
    n_steps: int = 50
    quadrature: Literal["gausslegendre", "left", "right", "middle", "trapezoid"] = "gausslegendre"
    baseline: Baseline = 0.0
    tolerance: float | None = None
    max_steps: int = 1024

    def asked(self, source: Source, inputs: Tensor) -> Asked:
        """The gradient at every point of each sample's path."""
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess).expand_as(inputs)
        alphas, weights = quadrature(self.quadrature, self.n_steps)
        layers = self.layers(inputs)
        if layers:
            return self._at_layer(source, baseline, layers[0], alphas, weights)
        points = PathPoints(source, baseline, alphas)

        def parts(rows: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
            assert answers.gradient is not None
            assert answers.groups is not None
            return answers.gradient, answers.groups

        def whole(samples: Tensor, sums: Tensor) -> Tensor:
            start = baseline[source.sample_of(samples).to(baseline.device)]
            return sums * (samples_of(source, samples, inputs) - start)[:, None]

        summed = Summed(points.source_of, lambda rows: beside(weights, rows)[rows % len(weights)])
        return Asked(points, InputGradient(summed=summed), parts, whole, len(alphas))

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The points of each path, and then the baselines' own scores."""
        inputs = in_single(inputs)
        if self.tolerance is not None:
            start = resolve_baseline(self.baseline, inputs, self.engine.preprocess).expand_as(inputs)
            adaptive = AdaptiveMaps(inputs, start, self.tolerance, self.max_steps)
            return Recipe(adaptive, then=adaptive.then)
        asked = self.asked(Clean(inputs, sample_ids), inputs)
        if asked.evaluate.layers:
            maps = CleanFormula(lambda rows, found: asked.parts(rows, found)[0])
            reduce = WithGap(maps, len(inputs), asked.variants.sample_of)
            return self.on_grid(Recipe(reduce, asked.evaluate), inputs)
        reduce = WithGap(
            SampleMaps(asked.parts, asked.whole, asked.per_sample, Stored()), len(inputs), asked.variants.sample_of
        )
        baseline = resolve_baseline(self.baseline, inputs, self.engine.preprocess).expand_as(inputs)
        starts = PathPoints(Clean(inputs), baseline, torch.zeros(1, dtype=torch.float64))
        sweeps = iter([Sweep(starts, Score(), reduce.reference)])
        return Recipe(
            reduce,
            variants=asked.variants,
            evaluate=asked.evaluate,
            then=lambda _scores: next(sweeps, None),
            afterwards=len(inputs),
        )

    def _at_layer(self, source: Source, baseline: Tensor, layer: str, alphas: Tensor, weights: Tensor) -> Asked:
        def parts(rows: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
            response = answers.responses[0]
            assert response.gradient is not None
            assert response.reference is not None
            return response.gradient * (response.activation - response.reference)[:, None], rows

        def references(rows: Tensor) -> Tensor:
            return baseline[source.sample_of(rows).to(baseline.device)]

        return Asked(source, LayerPath(layer, alphas, weights, references, self.engine.settings.points), parts)

    def per_sample(self, shape: tuple[int, ...]) -> Cost:
        """The points of a path; at a layer also both ends and the baseline itself."""
        points = self.n_steps if self.tolerance is None else self.max_steps
        return Cost(forwards=points + (0 if self.layer is None else 3), backwards=points)

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        rows = self.per_sample(shape)
        return Cost(rows.forwards + (2 if self.layer is None else 0), rows.backwards)

    def _check(self) -> None:
        super()._check()
        check_baseline(self.baseline)
        if self.quadrature not in QUADRATURES:
            raise ValueError(f"`quadrature` came as {self.quadrature!r}; give one of {', '.join(QUADRATURES)}")
        least = 2 if self.quadrature == "trapezoid" else 1
        check_count(self.n_steps, "n_steps", least)
        check_count(self.max_steps, "max_steps")
        if self.tolerance is not None:
            check_tolerance(self.tolerance, ", or None")
            if self.layer is not None:
                raise ValueError("`tolerance` is for paths of the input; at a layer give `n_steps`")

"""Error attribution: what in the image pushes a wrong answer away from the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from xai_fast.core.indices import beside, known
from xai_fast.core.layers import Grid as LayerGrid
from xai_fast.core.layers import Layer, checked_grid, layer_names
from xai_fast.core.objective import Objective, OwnTarget
from xai_fast.core.scores import class_indices, find_scores, refuse_beyond, score_table, two_classes
from xai_fast.core.targets import Target, cross_entropy, margin
from xai_fast.engine import Cost, Recipe
from xai_fast.engine.estimators.quadrature import quadrature
from xai_fast.engine.evaluate import Answers, InputGradient, LayerPath
from xai_fast.engine.inputs import checked
from xai_fast.engine.reducers.cam import Grid, grid_of
from xai_fast.engine.reducers.clean import CleanFormula
from xai_fast.engine.reducers.gap import WithGap
from xai_fast.engine.run import Outcome
from xai_fast.ops import cam_reduce

from .base import AbstractMethod, Resolution

_STEPS = 50  # of the path, where the layer's way to the output is not linear


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ErrorAttribution(AbstractMethod):
    r"""What in the image makes the model err: the error pushed back to the pixels, or to a layer's positions.

    .. math:: \text{gradient:}\quad A = \frac{\partial}{\partial x}\bigl(-\log p_{\text{true}}(x)\bigr), \qquad
              \text{activation:}\quad A = \sum_k A_k \odot \int_0^1 \frac{\partial e}{\partial A_k}(\alpha A)\, d\alpha

    with :math:`e = \sum_j p_j s_j - s_{\text{true}}`, the scores weighted by what the model predicted (p is held fixed)
    less the true class's score. With `against="predicted"` both kinds take the predicted class's score less the true
    one's instead. A model with one output has one logit s, and the true classes 0 and 1 with the scores 0 and s. Behind
    pooling and a linear layer the integral is the plain gradient; in general 50 Gauss-Legendre points are taken on the
    way from no activation (Sundararajan et al. 2017, arXiv:1703.01365), of the layer's tail.

    The target is the true class. Positive values push towards the error. "gradient" is in units of the loss (or score)
    per unit of input and sums to nothing; "activation" is in units of the score and sums to e less e without any
    activation, up to the explanation's `completeness_gap` (of the layer's own grid, before it is resized).

    Args:
        model: a module or an `Engine`; a callable for kind "gradient".
        kind: "gradient" or "activation".
        against: what the truth is compared with: the predicted "distribution" or the "predicted" class.
        layer: of kind "activation": "auto" (the deepest map on which the score depends), a name or a module.
        grid: of that layer: (h, w), or a function from its activation to (N, C, h, w), where it is not clear.

    Returns (`attribute`): "gradient": (N, C, *S); "activation": (N, 1, *S), with `resolution="native"` (N, 1, *s).

    Cost: "gradient": one row forward and one backward per input. "activation": 52 forward and 50 backward per input,
    from the layer on.

    Raises:
        TypeError: no true classes; they are what the error is measured by.
    """

    kind: Literal["gradient", "activation"] = "gradient"
    against: Literal["distribution", "predicted"] = "distribution"
    layer: Layer = "auto"
    grid: LayerGrid = None

    @property
    def complete(self) -> str:
        """What kind "activation" sums to."""
        return "e - e(no activation)" if self.kind == "activation" else ""

    @property
    def units(self) -> str:
        """By the kind."""
        return "score" if self.kind == "activation" else super().units

    @property
    def per_pixel(self) -> bool:
        """By the kind."""
        return self.kind == "gradient"

    def layers(self, inputs: Tensor) -> tuple[str, ...]:
        """The layer, for kind "activation"."""
        return self.engine.layers(self.layer, inputs) if self.kind == "activation" else ()

    def recipe(self, inputs: Tensor, resolution: Resolution = "input", sample_ids: Tensor | None = None) -> Recipe:
        """The gradient at the input, or the way from no activation."""
        if self.kind == "gradient":
            return Recipe(CleanFormula(lambda _rows, found: _gradient(found)), InputGradient())
        size = tuple(inputs.shape[2:])
        (layer,) = self.layers(inputs)
        (reading,) = self.engine.readings((layer,), inputs, self.grid)
        sums: list[Tensor] = []

        def formula(_rows: Tensor, answers: Answers) -> Tensor:
            response = answers.responses[0]
            assert response.gradient is not None
            # Of the layer's whole output: what is no position, as a class token, counts too.
            sums.append((response.activation[:, None].double() * response.gradient).flatten(2).sum(2))
            return _positions(grid_of(response, reading), size if resolution == "input" else None)

        alphas, weights = quadrature("gausslegendre", _STEPS)
        reduce = WithGap(CleanFormula(formula), len(inputs), lambda rows: rows, sums=lambda: torch.cat(sums))
        return Recipe(reduce, LayerPath(layer, alphas, weights, None, self.engine.settings.points))

    def _run(
        self, inputs: Tensor, target: Target, resolution: Resolution, sample_ids: Tensor | None
    ) -> tuple[Outcome, Objective]:
        count = len(checked(inputs))
        if target is None or (callable(target) and not isinstance(target, Tensor)):
            raise TypeError(
                f"`target` came as {target!r}; give the true classes, an int, {count} ints or a LongTensor ({count},): "
                "what the model predicted is no error"
            )
        true = class_indices(target, count, "target")
        if (classes := self.engine.classes) is not None:
            refuse_beyond("target", true, max(len(classes), 2))  # one logit tells two classes apart
        outcome, _ = super()._run(inputs, self._error(true), resolution, sample_ids)
        return outcome, Objective(true, count)

    def _error(self, true: Tensor) -> Target:
        """What is pushed back, as a target."""
        if self.against == "predicted":
            return dataclasses.replace(margin(true), labels=True)
        return (
            cross_entropy(true)
            if self.kind == "gradient"
            else _Expected(true, self.engine.settings.output or find_scores)
        )

    def _cost(self, shape: tuple[int, ...]) -> Cost:
        if self.kind == "gradient":
            return Cost(forwards=1, backwards=1)
        return Cost(forwards=2 + _STEPS, backwards=_STEPS)

    def _check(self) -> None:
        if self.kind not in ("gradient", "activation"):
            raise ValueError(f'`kind` came as {self.kind!r}; give "gradient" or "activation"')
        if self.against not in ("distribution", "predicted"):
            raise ValueError(f'`against` came as {self.against!r}; give "distribution" or "predicted"')
        if isinstance(self.layer, list | tuple):
            raise ValueError('`layer` came as a list; give one layer, or "auto"')
        object.__setattr__(self, "grid", checked_grid(self.grid))
        if not (isinstance(self.layer, str) and self.layer == "auto"):
            object.__setattr__(self, "layer", layer_names(self.engine.model, self.layer)[0])


class _Expected(OwnTarget):
    """The scores weighted by the distribution that the model predicts for the clean input, less the true one's.

    Args:
        true: LongTensor (N,).
        scores_of: from the model's raw output to (rows, K).
    """

    def __init__(self, true: Tensor, scores_of: Callable[[Any], Tensor]) -> None:
        self._true, self._scores_of = true, scores_of
        self._shares: Tensor | None = None  # (N, classes)
        self._seen: set[int] = set()

    def __call__(self, output: Any, sample: Tensor) -> Tensor:
        """(rows,); the first rows of an input that are asked about are the clean ones."""
        scores = two_classes(score_table(output, len(sample), self._scores_of))
        refuse_beyond("target", self._true, scores.shape[1])
        if self._shares is None:
            self._shares = scores.new_zeros(len(self._true), scores.shape[1])
        for row, number in enumerate(known(sample).tolist()):
            if number not in self._seen:
                self._seen.add(number)
                self._shares[number] = scores[row].detach().softmax(0)
        shares, index = self._shares[sample], beside(self._true, sample)[sample]
        return (shares * scores).sum(1) - scores.gather(1, index[:, None])[:, 0]


def _gradient(answers: Answers) -> Tensor:
    assert answers.gradient is not None
    return answers.gradient


def _positions(grid: Grid, size: tuple[int, ...] | None) -> Tensor:
    """Σ_k A_k times the path's gradient by it: (rows, K, 1, *s), resized to `size`."""
    assert grid.gradient is not None
    sums = (grid.activation[:, None] * grid.gradient).sum(2)
    if size is None or size == tuple(sums.shape[2:]):
        return sums[:, :, None]
    one = sums.new_ones(len(sums), 1, 1)
    resized = [cam_reduce(sums[:, k, None], one, relu=False, size=size) for k in range(sums.shape[1])]
    return torch.stack(resized, dim=1)

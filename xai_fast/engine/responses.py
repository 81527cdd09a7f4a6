"""What layers answer, as it is: for callers that make a map of it themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.layers import Reading
from xai_fast.core.targets import Target

from .engine import Engine
from .evaluate import Answers, BiasResponse, Evaluate, LayerActivation, LayerCurvature, LayerResponse
from .recipe import Recipe, Variants
from .reducers.clean import CleanFormula, clean_scores
from .run import Outcome
from .samplers.layer import LayerChange


@dataclass(frozen=True)
class LayerAnswer:
    """What one layer answers to N inputs.

    Attributes:
        activation: (N, ...) as the layer returns it.
        gradient: (N, ...) of the scores by it; None where none was asked for.
        curvature: (N, ...) the scores' Hessian by it, times it; None where it was not asked for.
    """

    activation: Tensor
    gradient: Tensor | None
    curvature: Tensor | None = None


def layer_answers(
    engine: Engine,
    layers: Sequence[str],
    inputs: Tensor,
    target: Target,
    *,
    gradients: bool,
    curvature: bool = False,
) -> tuple[list[LayerAnswer], Tensor]:
    """What the layers answer to inputs (N, C, *S) about one target of each, and all class scores (N, classes).

    With `curvature` the scores are differentiated twice.

    Raises:
        ValueError: the model has no table of class scores, or an argument does not fit.
    """
    question = (LayerCurvature if curvature else LayerResponse if gradients else LayerActivation)(tuple(layers))
    return _asked(engine, question, inputs, target)


def bias_answers(
    engine: Engine, biases: dict[str, Tensor], inputs: Tensor, target: Target
) -> tuple[list[LayerAnswer], Tensor]:
    """The input with its gradient, and then what each of the named modules returned, in the order in which they ran.

    Args:
        engine: of the model.
        biases: (C,) of each module; nothing is folded across any of them.
        inputs: (N, C, *S).
        target: one of each input.
    """
    return _asked(engine, BiasResponse(biases), inputs, target, unfolded=tuple(biases))


def _asked(
    engine: Engine, question: Evaluate, inputs: Tensor, target: Target, unfolded: tuple[str, ...] = ()
) -> tuple[list[LayerAnswer], Tensor]:
    chunks: list[Answers] = []

    def keep(_sample: Tensor, answers: Answers) -> Tensor:
        chunks.append(answers)
        return answers.scores

    reduce = CleanFormula(keep)
    outcome, _ = engine.run(lambda _inputs: Recipe(reduce, question, unfolded=unfolded), inputs, target)
    answers = []
    for parts in zip(*(chunk.responses for chunk in chunks), strict=True):
        activation = torch.cat([part.activation for part in parts])
        gradient, curvature = _joined([p.gradient for p in parts]), _joined([p.curvature for p in parts])
        answers.append(LayerAnswer(activation, gradient, curvature))
    return answers, _table_of(outcome)


def _joined(chunks: Sequence[Tensor | None]) -> Tensor | None:
    """Of the one target of each row; None where nothing was asked for."""
    found = [chunk[:, 0] for chunk in chunks if chunk is not None]
    return torch.cat(found) if found else None


def class_scores(engine: Engine, inputs: Tensor) -> Tensor:
    """All class scores (N, classes) of inputs (N, C, *S).

    Raises:
        ValueError: the model has no table of them.
    """
    outcome, _ = engine.run(lambda _inputs: Recipe(clean_scores()), inputs, None)
    return _table_of(outcome)


def _table_of(outcome: Outcome) -> Tensor:
    if outcome.outputs is None:
        raise ValueError("the model returns no table of class scores (N, classes)")
    return outcome.outputs


def falls_under(
    engine: Engine, layer: str, reading: Reading, change: LayerChange, inputs: Tensor, target: Target
) -> tuple[Tensor, Tensor]:
    """Scores (N,) and how far they fall (N, V) under every change of one layer's output."""

    def falls(_sample: Tensor, answers: Answers) -> Tensor:
        found = answers.responses[0].falls
        assert found is not None
        return found

    recipe = Recipe(CleanFormula(falls), LayerActivation((layer,)), change=change, readings={layer: reading})
    outcome, _ = engine.run(lambda _inputs: recipe, inputs, target)
    return outcome.scores[:, 0], outcome.values


def variant_scores(engine: Engine, variants_of: Callable[[Tensor], Variants], inputs: Tensor, target: Target) -> Tensor:
    """The score (R,) of each variant of inputs (N, C, *S) about one target of each, in float32 or wider.

    `variants_of` makes the variants of the inputs where the model is.
    """
    table = _Table()

    def recipe_of(own: Tensor) -> Recipe:
        variants = variants_of(own)
        table.count = len(variants)
        return Recipe(table, variants=variants)

    engine.run(recipe_of, inputs, target)
    assert table.scores is not None
    return table.scores


class _Table:
    """Keeps the score of every variant."""

    def __init__(self) -> None:
        self.count = 0
        self.scores: Tensor | None = None
        self._clean: list[Tensor] = []

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Kept for `finish` alone."""
        self._clean.append(answers.scores)

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Puts each in its place."""
        if self.scores is None:
            self.scores = answers.scores.new_empty(self.count)
        self.scores[rows.to(self.scores.device)] = answers.scores[:, 0]

    def finish(self) -> Tensor:
        """The clean scores, (N, K): there is no map."""
        return torch.cat(self._clean)

"""LIME and Shapley values on text: which words speak for a class, and which against it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from xai_fast.core.classifier import Scores, scores_of
from xai_fast.engine import Engine, Recipe
from xai_fast.engine.estimators.shapley import ShapleyRegression
from xai_fast.engine.estimators.shapley_draws import Players, weighted_draws
from xai_fast.engine.estimators.surrogate import Surrogate
from xai_fast.engine.reducers.coalitions import CoalitionValues, Estimator, Stage
from xai_fast.engine.samplers.coalitions import Coalitions, Table
from xai_fast.engine.samplers.subsets import drawn_sizes, of_sizes
from xai_fast.images.segments import SegmentMap
from xai_fast.results.result import name_of
from xai_fast.results.text_explanation import TextExplanation
from xai_fast.results.text_pieces import Pieces, Unit

from .checks import check_choice, check_count, check_positive, check_seed
from .lime import proximity

_ROWS = 64  # texts at once


class _Masked:
    """A text as a model of which features are shown: (rows, 1, features) of 0 and 1 to scores (rows, K)."""

    rows_are_apart = True  # a classifier is asked about strings, each by itself

    def __init__(self, scores: Scores, pieces: Pieces) -> None:
        self._scores, self._pieces = scores, pieces

    def __call__(self, batch: Tensor) -> Tensor:
        return self._scores([self._pieces.showing(row) for row in batch[:, 0].bool().tolist()])


@dataclass(frozen=True, eq=False, repr=False)
class AbstractTextMethod(ABC):
    """Features of a text taken out at random, the classifier asked about what is left."""

    classifier: Any
    unit: Unit = field(default="word", kw_only=True)
    n_samples: int = field(default=5000, kw_only=True)
    top_k: int = field(default=10, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    batch_size: int = field(default=_ROWS, kw_only=True)
    progress: bool | Callable[[int, int], Any] = field(default=False, kw_only=True)
    classes: Sequence[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        scores_of(self.classifier)
        check_choice(self.unit, "unit", ("word", "character"))
        check_count(self.n_samples, "n_samples", 2)
        check_count(self.top_k, "top_k")
        check_seed(self.seed)
        check_count(self.batch_size, "batch_size")

    def explain(self, text: str, target: int | Callable[..., Tensor] | None = None) -> TextExplanation:
        """What the words of a text weigh.

        Args:
            text: with at least one word.
            target: a class, None for the one with the highest score, or a callable from scores (rows, K) to (rows,).

        Raises:
            TypeError, ValueError: an argument does not fit, before the classifier is asked; or what it returns is no
                table of scores.
            NonFiniteError: the classifier answered NaN or Inf.
        """
        if not isinstance(text, str):
            raise TypeError(f"`text` came as {type(text).__name__}; give one string")
        if not (target is None or callable(target) or (isinstance(target, int) and not isinstance(target, bool))):
            raise TypeError(f"`target` came as {type(target).__name__}; give one class, None or a callable")
        pieces = Pieces.of(text, self.unit)
        if not len(pieces):
            raise ValueError(f"`text` has no {self.unit}s, so there is nothing to take out; give a text with some")
        scores, names = scores_of(self.classifier)
        shown, estimator = self.drawn(len(pieces))
        engine = Engine(
            _Masked(scores, pieces),
            batch_size=self.batch_size,
            progress=self.progress,
            classes=self.classes or names,
        )

        def recipe_of(inputs: Tensor) -> Recipe:
            segments = SegmentMap.of(torch.arange(len(pieces))[None])
            draws = Table(shown, torch.tensor([len(shown)]))
            coalitions = Coalitions(inputs, torch.zeros_like(inputs), segments, draws)
            stages = [[Stage(len(shown), estimator)]]
            return Recipe(variants=coalitions, reduce=CoalitionValues(segments, coalitions, draws.counts, stages))

        outcome, objective = engine.run(recipe_of, torch.ones(1, 1, len(pieces), dtype=torch.float64), target)
        details, record = outcome.details, objective.record
        return TextExplanation(
            pieces=pieces,
            weights=outcome.values.flatten(),
            target=int(record) if isinstance(record, Tensor) else name_of(record),
            score=float(outcome.scores[0, 0]),
            outputs=None if outcome.outputs is None else outcome.outputs[0],
            method=repr(self),
            evaluations=int(outcome.evaluations[0]),
            top_k=self.top_k,
            standard_error=None if details.standard_error is None else details.standard_error.flatten(),
            fit=None if details.fit is None else float(details.fit),
            completeness_gap=None if details.gap is None else float(details.gap),
            seconds=outcome.seconds,
            classes=engine.classes,
        )

    @abstractmethod
    def drawn(self, features: int) -> tuple[Tensor, Estimator]:
        """Which features each draw shows, BoolTensor (D, features), and what is made of the scores."""

    def __repr__(self) -> str:
        quiet = ("batch_size", "progress", "classes")
        given = [
            f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.kw_only and f.name not in quiet
        ]
        return f"{type(self).__name__}({', '.join(['classifier', *given])})"


@final
@dataclass(frozen=True, eq=False, repr=False)
class LimeText(AbstractTextMethod):
    r"""LIME on text: the linear model of words that is closest to the score around the text.

    Ribeiro et al. 2016, arXiv:1602.04938. Words are taken out together with all their occurrences, a uniformly drawn
    number of them; a text that keeps the share q of its words weighs exp(−D²/2w²) with D = 100 (1 − √q), and a ridge
    regression (α = 1) of the score on what is shown gives the weights, as in lime 0.2. Only `top_k` words get one,
    chosen by the lasso's path as the paper's K-LASSO (lime chooses by forward selection or the largest weights).

    Weights are in units of the score, positive where the word raises it. They do not sum to anything; the
    explanation's `fit` is the weighted R² of the linear model.

    Args:
        classifier: a callable from a list of strings to scores (rows, K), such as a scikit-learn pipeline's
            `predict_proba`, or a Hugging Face text-classification pipeline.
        unit: "word" (runs of letters, digits and their marks, and emoji) or "character" (as seen, each by itself).
        n_samples: texts, the whole one included.
        kernel_width: w.
        top_k: how many words get a weight.
        seed: of the draws.
        batch_size: texts per call of the classifier.
        progress: True for a bar, or a callable (texts done, texts in total).
        classes: names of the outputs.

    Cost: n_samples texts at most; those that are the same are asked about once.

    Raises:
        TypeError, ValueError: an argument does not fit; before the classifier is asked.
    """

    kernel_width: float = field(default=25.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.kernel_width, "kernel_width")

    def drawn(self, features: int) -> tuple[Tensor, Surrogate]:
        """How many are taken out is uniform from 1 to all; the first draw is the whole text."""
        draws = torch.arange(1, self.n_samples)
        kept = drawn_sizes(self.seed, 0, draws, torch.ones(features))
        shown = torch.cat([torch.ones(1, features, dtype=torch.bool), of_sizes(self.seed, 0, draws, kept, features)])
        weights = proximity(shown.sum(1), features, self.kernel_width / 100)
        return shown, Surrogate(shown, weights, "ridge", 1.0, self.top_k)


@final
@dataclass(frozen=True, eq=False, repr=False)
class ShapleyText(AbstractTextMethod):
    r"""Shapley values of the words of a text, by weighted regression over coalitions (as `KernelShap`).

    Lundberg and Lee 2017, arXiv:1705.07874. Words are taken out together with all their occurrences. Texts of few
    words, 2^n ≤ n_samples, are exact; else coalitions are drawn with their complements and the explanation has the
    standard error of every weight.

    Weights are in units of the score and sum to that of the whole text less that of the text without any word.

    Args:
        classifier: a callable from a list of strings to scores (rows, K), such as a scikit-learn pipeline's
            `predict_proba`, or a Hugging Face text-classification pipeline.
        unit: "word" (runs of letters, digits and their marks, and emoji) or "character" (as seen, each by itself).
        n_samples: texts, the whole and the empty one included; at least twice as many as words, unless 2^n are fewer.
        top_k: how many words `as_list` gives; all have their weight.
        seed: of the draws.
        batch_size: texts per call of the classifier.
        progress: True for a bar, or a callable (texts done, texts in total).
        classes: names of the outputs.

    Cost: n_samples texts at most.

    Raises:
        TypeError, ValueError: an argument does not fit, too few samples for the words among them; before the
            classifier is asked.
    """

    def drawn(self, features: int) -> tuple[Tensor, ShapleyRegression]:
        """Sizes in proportion to the kernel, few and many words enumerated."""
        units = f"{self.unit}s"
        words = Players(units, f"`text` has {{}} {units}", "give a shorter text, or use LimeText")
        (draws,) = weighted_draws(features, [self.n_samples], "paired", self.seed, 0, players=words)
        return draws.shown, ShapleyRegression(draws)

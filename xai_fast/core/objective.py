"""A target in normal form: the K numbers per row that are to be explained, whatever the caller wrote for `target`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .detections import Detection
from .indices import known
from .scores import class_indices, find_scores, is_one_hot, one_hot_hint, refuse_beyond, score_table, two_classes
from .targets import UNSETTLED, ScoreTarget, Target


class OwnTarget(ABC):
    """A target function of the package's own: it takes the indices of inputs where the model is, others on the CPU."""

    @abstractmethod
    def __call__(self, output: Any, sample: Tensor) -> Tensor:
        """One number per row of a raw output; see `xai_fast.core.targets.Target`."""


class Objective:
    """Computes the scores (rows, K) of a batch of variants from the model's raw output.

    Args:
        target: as the caller gave it.
        n_samples: number of clean inputs, N.
        output: from the raw output to (rows, outputs) scores; found automatically when None.
        classes: names of the outputs, where they have some.

    Attributes:
        scores_of: what finds the scores in a raw output.
        several: whether the target was (N, K), or K boxes of each input, so that results carry an axis K.
        width: K.

    Raises:
        TypeError, ValueError: `target` is of a wrong kind, or does not fit N inputs or the classes.
    """

    def __init__(
        self,
        target: Target,
        n_samples: int,
        output: Callable[[Any], Tensor] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.scores_of = output or find_scores
        self._given, self._classes = target, classes
        self._formula: Callable[[Tensor, Tensor], Tensor] = lambda scores, index: scores.gather(1, index)
        self._function: Callable[..., Tensor] | None = None
        self._index = torch.empty(n_samples, 0, dtype=torch.long)
        self.several = False
        if target is None:
            self._index = torch.full((n_samples, 1), UNSETTLED)
        elif isinstance(target, ScoreTarget):
            self._index = target.columns(n_samples)
            self._formula = lambda scores, index: target.value(scores, index)[:, None]
        elif callable(target) and not isinstance(target, Tensor):
            # A detector's own boxes get places here, and the caller's target stays open.
            self._function = target.opened(n_samples) if isinstance(target, Detection) else target
            self._takes_sample = takes_sample(target)
        else:
            index = class_indices(target, n_samples, "target", several=True)
            self.several = index.ndim == 2
            self._index = index.view(n_samples, -1)
        self.width = self._index.shape[1] if self.several else 1
        if isinstance(target, Detection):
            self.several, self.width = target.several, target.width
        self._asked = self._index  # as the caller gave it, which stays on the CPU
        self._open = bool((self._index == UNSETTLED).any())
        if classes is not None:
            self.check(len(classes))

    @property
    def record(self) -> Tensor | Callable[..., Tensor]:
        """For the Explanation: class indices (N,) or (N, K), or the callable; a detection with its boxes settled."""
        if isinstance(self._function, Detection) and self._function.own:
            return self._function.settled()
        if callable(self._given) and not isinstance(self._given, Tensor):
            return self._given
        index = self._index.cpu().clone()
        return index if self.several else index[:, 0]

    def check(self, n_outputs: int) -> None:
        """Raises ValueError where a class index, or the names of the classes, do not fit `n_outputs`."""
        if self._function is not None:
            return
        if self._classes is not None and len(self._classes) != n_outputs:
            raise ValueError(
                f"`classes` holds {len(self._classes)} names and the model has {n_outputs} "
                f"output{'s' * (n_outputs != 1)}; give one name per output"
            )
        if isinstance(self._given, ScoreTarget):
            self._given.check(self._asked, n_outputs)
        else:
            refuse_beyond("target", self._asked, n_outputs)
        if self.several and is_one_hot(self._asked, n_outputs):
            raise ValueError(
                f"`target` of shape {tuple(self._asked.shape)} holds one-hot rows for a model with {n_outputs} outputs"
                f"{one_hot_hint('target')}, one of each input, or (N, K) for K targets of each"
            )

    def settle(self, raw: Any, sample: Tensor) -> None:
        """Takes the argmax of the clean inputs `sample` (rows,) wherever a class was left open, or the surest boxes."""
        if isinstance(self._function, Detection) and self._function.own:
            self._function.settle(raw, known(sample))
        if self._function is not None:
            return
        scores = self._indexable(raw, sample)
        self.check(scores.shape[1])
        if self._open:
            rows = self._of(sample, scores)
            of_two = isinstance(self._given, ScoreTarget) and self._given.labels
            best = (two_classes(scores) if of_two else scores).detach().argmax(1)[:, None].expand_as(rows)
            if self._index is self._asked:
                self._index = self._index.clone()
            self._index[sample.to(scores.device)] = torch.where(rows == UNSETTLED, best, rows)

    def __call__(self, raw: Any, sample: Tensor) -> Tensor:
        """The scores (rows, K) of rows that are variants of the inputs `sample` (rows,)."""
        if self._function is not None:
            return self._called(self._function, raw, sample)
        scores = self._indexable(raw, sample)
        return self._formula(scores, self._of(sample, scores))

    @property
    def rescales(self) -> bool:
        """Whether `rescaled` is anything else than the scores."""
        return isinstance(self._given, ScoreTarget)

    def rescaled(self, raw: Any, references: Any, sample: Tensor) -> Tensor:
        """What has (rows, K) gradients by the raw output that are the rescale rule's multipliers against `references`.

        Those of a formula of `xai_fast.targets`; of any other function, whose formula is not known, its gradient.
        """
        if not isinstance(self._given, ScoreTarget):  # as `rescales` says
            return self(raw, sample)
        scores, others = self._indexable(raw, sample), self._indexable(references, sample)
        return self._given.rescaled(scores, others, self._of(sample, scores))[:, None]

    def columns(self, raw: Any, sample: Tensor) -> Tensor | None:
        """Which columns (rows, K) of the raw output the scores are; None where they are made from it otherwise."""
        plain = isinstance(raw, Tensor) and raw.ndim == 2 and self.scores_of is find_scores
        if self._function is not None or isinstance(self._given, ScoreTarget) or not plain:
            return None
        return self._of(sample, raw)

    def class_scores(self, raw: Any, sample: Tensor) -> Tensor | None:
        """All class scores (rows, n_outputs); None where the output is no table of classes."""
        if self._function is None:
            return self._indexable(raw, sample).detach()
        try:
            scores = self._indexable(raw, sample).detach()
        except Exception:  # a function target takes any output, and nobody has said that there are class scores in it
            return None
        return scores if self._classes is None or len(self._classes) == scores.shape[1] else None

    def _of(self, sample: Tensor, scores: Tensor) -> Tensor:
        """The columns (rows, K) of the inputs `sample`, where the scores are: all inputs' go there once."""
        if self._index.device != scores.device:
            self._index = self._index.to(scores.device)
        return self._index[sample.to(scores.device)]

    def _indexable(self, raw: Any, sample: Tensor) -> Tensor:
        return score_table(raw, len(sample), self.scores_of)

    def _called(self, function: Callable[..., Tensor], raw: Any, sample: Tensor) -> Tensor:
        if isinstance(function, OwnTarget):
            score = function(raw, sample)
        else:
            score = function(raw, known(sample)) if self._takes_sample else function(raw)
        if self.several and isinstance(score, Tensor) and score.shape == (len(sample), self.width):
            return score
        if not isinstance(score, Tensor) or score.shape != (len(sample),) or not score.is_floating_point():
            came = f"{score.dtype} {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise TypeError(
                f"`target` must return one floating number per row, shape ({len(sample)},), and returned {came}"
            )
        return score[:, None]


def takes_sample(function: Callable[..., Any]) -> bool:
    """Whether a callable target wants the sample indices as its second argument."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    return len(required) == 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)

"""A target in normal form: the K numbers per row that are to be explained, whatever the caller wrote for `target`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .targets import UNSETTLED, ScoreTarget, Target, class_indices, find_scores


class Objective:
    """Computes the scores (rows, K) of a batch of variants from the model's raw output.

    Args:
        target: as the caller gave it.
        n_samples: number of clean inputs, N.
        output: from the raw output to (rows, outputs) scores; found automatically when None.

    Attributes:
        several: whether the target was (N, K), so that results carry an axis K.
        width: K.

    Raises:
        TypeError, ValueError: `target` is of a wrong kind or does not fit N inputs.
    """

    def __init__(self, target: Target, n_samples: int, output: Callable[[Any], Tensor] | None = None) -> None:
        self._scores_of = output or find_scores
        self._given = target
        self._formula: Callable[[Tensor, Tensor], Tensor] = lambda scores, index: scores.gather(1, index)
        self._function: Callable[..., Tensor] | None = None
        self._index = torch.empty(n_samples, 0, dtype=torch.long)
        self.several = False
        if target is None:
            self._index = torch.full((n_samples, 1), UNSETTLED)
        elif isinstance(target, ScoreTarget):
            self._index = target.columns(n_samples)
            self._formula = lambda scores, index: target.formula(scores, index)[:, None]
        elif callable(target) and not isinstance(target, Tensor):
            self._function = target
            self._takes_sample = _takes_sample(target)
        else:
            index = class_indices(target, n_samples, "target", several=True)
            self.several = index.ndim == 2
            self._index = index.view(n_samples, -1)
        self.width = self._index.shape[1] if self.several else 1

    @property
    def record(self) -> Tensor | Callable[..., Tensor]:
        """For the Explanation: class indices (N,) or (N, K), or the callable."""
        if callable(self._given) and not isinstance(self._given, Tensor):
            return self._given
        return self._index.clone() if self.several else self._index[:, 0].clone()

    def check(self, n_outputs: int) -> None:
        """Raises ValueError where a class index is not one of `n_outputs`."""
        if self._index.numel() and int(self._index.max()) >= n_outputs:
            raise ValueError(
                f"`target` {int(self._index.max())} is not a class of this model, which has {n_outputs}; "
                f"give 0 to {n_outputs - 1}"
            )

    def settle(self, raw: Any, sample: Tensor) -> None:
        """Takes the argmax of the clean inputs `sample` (rows,) wherever a class was left open."""
        if self._function is not None:
            return
        scores = self._indexable(raw)
        self.check(scores.shape[1])
        if (self._index == UNSETTLED).any():
            rows = self._index[sample.cpu()]
            best = scores.detach().argmax(1).cpu()[:, None].expand_as(rows)
            self._index[sample.cpu()] = torch.where(rows == UNSETTLED, best, rows)

    def __call__(self, raw: Any, sample: Tensor) -> Tensor:
        """The scores (rows, K) of rows that are variants of the inputs `sample` (rows,)."""
        if self._function is not None:
            return self._called(self._function, raw, sample)
        scores = self._indexable(raw)
        return self._formula(scores, self._index[sample.cpu()].to(scores.device))

    def columns(self, raw: Any, sample: Tensor) -> Tensor | None:
        """Which columns (rows, K) of the raw output the scores are; None where they are made from it otherwise."""
        plain = isinstance(raw, Tensor) and raw.ndim == 2 and self._scores_of is find_scores
        if self._function is not None or isinstance(self._given, ScoreTarget) or not plain:
            return None
        return self._index[sample.cpu()].to(raw.device)

    def class_scores(self, raw: Any) -> Tensor | None:
        """All class scores (rows, n_outputs); None where the output is no table of classes."""
        try:
            return self._indexable(raw).detach()
        except (TypeError, ValueError):
            return None

    def _indexable(self, raw: Any) -> Tensor:
        scores = self._scores_of(raw)
        if scores.ndim != 2:
            raise ValueError(
                f"`target` as a class index needs (N, K) scores, and the model returned {tuple(scores.shape)}; "
                "pass `target` as a function of the model's output that returns one number per row"
            )
        return scores

    def _called(self, function: Callable[..., Tensor], raw: Any, sample: Tensor) -> Tensor:
        score = function(raw, sample) if self._takes_sample else function(raw)
        if not isinstance(score, Tensor) or score.shape != (len(sample),) or not score.is_floating_point():
            came = f"{score.dtype} {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise TypeError(
                f"`target` must return one floating number per row, shape ({len(sample)},), and returned {came}"
            )
        return score[:, None]


def _takes_sample(function: Callable[..., Any]) -> bool:
    """Whether a callable target wants the sample indices as its second argument."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    return len(required) == 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)

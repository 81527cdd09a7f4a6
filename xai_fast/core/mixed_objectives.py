"""Objectives that mix class scores: a class against those closest to it, and all classes as the model predicts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .objective import Objective
from .targets import Target


def _refuse_function(target: Target, what: str) -> None:
    if callable(target) and not isinstance(target, Tensor):
        raise TypeError(
            f"`target` came as a function, and {what}; give class indices, or None for each input's highest score"
        )


class Contrast(Objective):
    """The score of a class less `gamma` times the mean score of the classes that score closest to it.

    Which they are is settled on the clean inputs.

    Args:
        target: class indices, or None for the argmax; no function.
        n_samples: number of clean inputs, N.
        output: from the raw output to (rows, outputs) scores; found automatically when None.
        classes: names of the outputs, where they have some.
        gamma: how much the others count.
        n_references: how many others, fewer where the model has fewer.

    Raises:
        TypeError, ValueError: as `Objective`, or the target is a function.
    """

    def __init__(
        self,
        target: Target,
        n_samples: int,
        output: Callable[[Any], Tensor] | None = None,
        classes: Sequence[str] | None = None,
        *,
        gamma: float,
        n_references: int,
    ) -> None:
        _refuse_function(target, "what is compared are classes")
        super().__init__(target, n_samples, output, classes)
        self._gamma, self._n_references = gamma, n_references
        self._references: Tensor | None = None  # (N, K, T)

    def settle(self, raw: Any, sample: Tensor) -> None:
        """Takes the argmax where a class was left open, and the classes closest to each."""
        super().settle(raw, sample)
        scores = self._indexable(raw, sample).detach()
        if scores.shape[1] < 2:
            raise ValueError("`model` has one output, and a class is compared with others; give a model with several")
        index = self._of(sample, scores)
        distances = (scores[:, None] - scores.gather(1, index)[..., None]).abs()
        distances.scatter_(2, index[..., None], float("inf"))
        closest = distances.topk(min(self._n_references, scores.shape[1] - 1), dim=2, largest=False).indices
        if self._references is None:
            self._references = closest.new_zeros(len(self._index), *closest.shape[1:])
        self._references[sample.to(closest.device)] = closest

    def __call__(self, raw: Any, sample: Tensor) -> Tensor:
        """The differences (rows, K)."""
        scores = self._indexable(raw, sample)
        assert self._references is not None
        references = self._references[sample.to(scores.device)]  # (rows, K, T)
        others = scores.gather(1, references.flatten(1)).view(references.shape).mean(2)
        return super().__call__(raw, sample) - self._gamma * others

    def columns(self, raw: Any, sample: Tensor) -> Tensor | None:
        """None: they are no columns."""
        return None


class Expectation(Objective):
    """Σ_c p_c s_c, all class scores weighted by what the model predicts for the clean input (p is held fixed)."""

    def __init__(
        self,
        target: Target,
        n_samples: int,
        output: Callable[[Any], Tensor] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        _refuse_function(target, "what is mixed are the scores of all classes")
        super().__init__(target, n_samples, output, classes)
        self._shares: Tensor | None = None  # (N, classes)

    def settle(self, raw: Any, sample: Tensor) -> None:
        """Takes the distribution."""
        super().settle(raw, sample)
        shares = self._indexable(raw, sample).detach().softmax(1)
        if self._shares is None:
            self._shares = shares.new_zeros(len(self._index), shares.shape[1])
        self._shares[sample.to(shares.device)] = shares

    def __call__(self, raw: Any, sample: Tensor) -> Tensor:
        """(rows, K), the same for every target."""
        scores = self._indexable(raw, sample)
        assert self._shares is not None
        shares = self._shares[sample.to(scores.device)]
        return (shares * scores).sum(1, keepdim=True).expand(-1, self.width)

    def columns(self, raw: Any, sample: Tensor) -> Tensor | None:
        """None: they are no columns."""
        return None

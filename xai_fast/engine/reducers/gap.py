"""Completeness: how far the sum of a map is from the difference of scores that it should be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xai_fast.core.indices import both, known
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details, Reducer


class WithGap:
    """A reducer whose maps should sum to the clean score less the mean score of the input's references.

    Args:
        reduce: makes the maps.
        n_inputs: N.
        sample_of: from rows to inputs, for answers that bring the references' scores with them.
        sums: (N, K) of the maps, once they are finished, where they are not those of what is returned (which was
            resized); None takes those.
    """

    def __init__(
        self,
        reduce: Reducer,
        n_inputs: int,
        sample_of: Callable[[Tensor], Tensor],
        sums: Callable[[], Tensor] | None = None,
    ) -> None:
        self._reduce, self._n_inputs, self._sample_of, self._sums_of = reduce, n_inputs, sample_of, sums
        self._references: Tensor | None = None
        self._count = torch.zeros(n_inputs, dtype=torch.float64)
        self._sums: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Hands them on, and keeps the references' scores."""
        self._reduce.clean(sample, answers)
        if answers.references is not None:
            self._add(sample, answers.references)

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Hands them on, and keeps the references' scores."""
        self._reduce.update(rows, answers)
        if answers.references is not None:
            self._add(both(self._sample_of, rows), answers.references)

    def reference(self, rows: Tensor, answers: Answers) -> None:
        """Takes the scores of references that were asked about by themselves, one for each input."""
        self._add(rows, answers.scores)

    def finish(self) -> Tensor:
        """(N, K, ...)."""
        maps = self._reduce.finish()
        self._sums = maps.double().flatten(2).sum(2) if self._sums_of is None else self._sums_of()
        return maps

    def details(self, scores: Tensor) -> Details:
        """The gaps (N, K)."""
        assert self._sums is not None
        if self._references is None:
            return Details()
        references = self._references / self._count[:, None].to(self._references)
        return Details(gap=self._sums - (scores.double() - references))

    def _add(self, samples: Tensor, scores: Tensor) -> None:
        if self._references is None:
            self._references = scores.new_zeros(self._n_inputs, scores.shape[1], dtype=torch.float64)
        self._references.index_add_(0, samples.to(scores.device), scores.double())
        self._count += torch.bincount(known(samples), minlength=self._n_inputs)

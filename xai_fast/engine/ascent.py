"""Gradient ascent on what the model sees: every step is one sweep over all rows, and the next one starts where it led.

The loop asks for the gradient at the pictures as they are; between two sweeps Adam moves the parameters that the
pictures are made of. Rows never meet, so that the result for one is the same whatever runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from xai_fast.core.indices import known

from .evaluate import Answers, Evaluate
from .finite import NonFiniteError
from .recipe import Sweep


class Parametrization(Protocol):
    """How pictures (rows, C, *S) are made of the numbers that are optimised."""

    def picture(self, parameters: Tensor) -> Tensor:
        """The pictures in the model's space, under autograd."""
        ...

    def settle(self, parameters: Tensor, sigma: float) -> Tensor:
        """The parameters after a step: blurred by a Gaussian of `sigma` elements, and brought back into range."""
        ...


class Ascent:
    """The state of one ascent: sampler, reducer and what follows each sweep, for a `Recipe`.

    The clean pass is step 0, so the recipe's inputs are `picture`, and its clean question is
    `question(True)`.

    Args:
        parametrization: see there.
        parameters: (rows, ...) where to start.
        question: from whether the gradient is needed to the question, which answers with one score per row.
        n_steps: number of steps, at least 1.
        lr: Adam's step size, in units of the parameters.
        distort: from pictures and the number of a step to what the model is shown there; only called between the
            first step and the end, where it sees the pictures as they are.
        sigma: from the number of a step (1 to n_steps) to the blur after it.

    Attributes:
        question: as given.
        step: how many steps have been made.
        history: (n_steps + 1, rows), what each row scored before the first step, before each other one, and at the end.
    """

    change: ClassVar[str] = "everything"

    def __init__(
        self,
        parametrization: Parametrization,
        parameters: Tensor,
        question: Callable[[bool], Evaluate],
        *,
        n_steps: int,
        lr: float,
        distort: Callable[[Tensor, int], Tensor],
        sigma: Callable[[int], float],
    ) -> None:
        self._parametrization, self.question = parametrization, question
        self._n_steps, self._distort, self._sigma = n_steps, distort, sigma
        self._parameters = parameters.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._parameters], lr=lr, maximize=True)
        self.step = 0
        self._shown = self._picture()
        self._gradient = torch.empty_like(self._shown)
        self.history = torch.empty(n_steps + 1, len(parameters), dtype=self._shown.dtype)

    def __len__(self) -> int:
        return len(self._parameters)

    def sample_of(self, rows: Tensor) -> Tensor:
        """Each row is its own input."""
        return rows

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """What the model is shown in this step."""
        out.copy_(self.picture[rows.to(self._shown.device)])

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Takes the answers of step 0."""
        self.take(sample, answers)

    def take(self, rows: Tensor, answers: Answers) -> None:
        """Keeps the scores and gradients of this step."""
        self.history[self.step, known(rows)] = answers.scores[:, 0].to(self.history)
        if answers.gradient is not None:
            self._gradient[rows.to(self._gradient.device)] = answers.gradient[:, 0].to(self._gradient)

    def update(self, rows: Tensor, answers: Answers) -> None:
        """A recipe with this reducer has no variants beside its sweeps."""
        raise AssertionError("Ascent was handed a variant")

    def then(self, scores: Tensor) -> Sweep | None:
        """One step, and the question about where it led; None once the end has been scored.

        Raises:
            NonFiniteError: a row scored NaN or Inf, or has such a gradient; further steps would only spread it.
        """
        self._refuse_broken()
        if self.step == self._n_steps:
            return None
        self._adam.zero_grad()
        self._shown.backward(self._gradient)
        self._adam.step()
        self.step += 1
        with torch.no_grad():
            self._parameters.copy_(self._parametrization.settle(self._parameters.detach(), self._sigma(self.step)))
        self._shown = self._picture()
        return Sweep(self, self.question(self.step < self._n_steps), self.take)

    def finish(self) -> Tensor:
        """The pictures (rows, 1, C, *S)."""
        return self.picture[:, None]

    @property
    def picture(self) -> Tensor:
        """What the model is shown in this step, (rows, C, *S)."""
        return self._shown.detach()

    def _picture(self) -> Tensor:
        with torch.enable_grad():
            picture = self._parametrization.picture(self._parameters)
            return self._distort(picture, self.step) if 0 < self.step < self._n_steps else picture

    def _refuse_broken(self) -> None:
        finite = self.history[self.step].isfinite()
        if self.step < self._n_steps:
            finite &= self._gradient.flatten(1).sum(1, dtype=torch.float64).isfinite().cpu()
        if not finite.all():
            raise NonFiniteError((~finite).nonzero()[:, 0].tolist(), self.finish())

"""Integrals along paths to a tolerance: which points are asked about next, input by input, and what comes of them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from xai_fast.engine.evaluate import Answers, InputGradient, Score
from xai_fast.engine.recipe import Details, Sweep
from xai_fast.engine.samplers.adaptive import AdaptivePath
from xai_fast.engine.samplers.clean import Clean
from xai_fast.engine.samplers.path import PathPoints


class AdaptiveMaps:
    """Integrates the gradient along the straight path from each input's baseline to the input.

    Its `then` belongs into the recipe: after the baselines' scores it asks level by level, one input after the other.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: (N, C, *S), any strides.
        tolerance: see `AdaptivePath`.
        max_steps: points per path at the most.
    """

    def __init__(self, inputs: Tensor, baseline: Tensor, tolerance: float, max_steps: int) -> None:
        self._inputs, self._baseline = inputs, baseline
        self._tolerance, self._max_steps = tolerance, max_steps
        self._starts: list[Tensor] = []
        self._paths: list[AdaptivePath] = []
        self._maps: list[Tensor] = []

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """The clean scores are kept by the loop."""

    def update(self, rows: Tensor, answers: Answers) -> None:
        """A recipe with this reducer has no variants before `then` is asked."""
        raise AssertionError("AdaptiveMaps was handed a variant")

    def then(self, scores: Tensor) -> Sweep | None:
        """The next rows: the baselines themselves, then levels of paths; None where every path is known."""
        if not self._starts:
            starts = PathPoints(Clean(self._inputs), self._baseline, torch.zeros(1, dtype=torch.float64))
            return Sweep(starts, Score(), lambda _rows, answers: self._starts.append(answers.scores))
        while True:
            level = self._paths[-1].next() if self._paths else None
            if level is not None:
                return self._level(len(self._paths) - 1, level)
            if self._paths:
                self._maps.append(self._paths[-1].values)
                self._paths[-1].values = self._maps[-1][:0]  # what the path keeps goes with it, but for its numbers
            if len(self._paths) == len(self._inputs):
                return None
            self._begin(scores)

    def finish(self) -> Tensor:
        """(N, K, C, *S)."""
        return torch.stack(self._maps)

    def details(self, scores: Tensor) -> Details:
        """The gaps (N, K); warns of inputs whose path was given up."""
        for n, path in enumerate(self._paths):
            if not path.reached:
                warnings.warn(
                    f"input {n}: the integral has not reached `tolerance` {self._tolerance} after {path.steps} of at "
                    f"most {self._max_steps} steps; its sum misses the scores' difference by "
                    f"{path.gap.abs().max().item():.2g} and its estimated error is {path.error.max().item():.2g} of "
                    "its norm; raise `max_steps` or `tolerance`",
                    stacklevel=2,
                )
        return Details(gap=torch.stack([path.gap for path in self._paths]))

    def _begin(self, scores: Tensor) -> None:
        n = len(self._paths)
        difference = self._inputs[n] - self._baseline[n]
        ends = torch.stack([torch.cat(self._starts)[n], scores[n]])
        self._paths.append(AdaptivePath(difference, ends, tolerance=self._tolerance, max_steps=self._max_steps))

    def _level(self, n: int, level: Tensor) -> Sweep:
        path = self._paths[n]
        points = PathPoints(Clean(self._inputs), self._baseline, level, samples=torch.tensor([n]))

        def take(rows: Tensor, answers: Answers) -> None:
            assert answers.gradient is not None
            path.take(rows, answers.scores, answers.gradient)

        return Sweep(points, InputGradient(), take)

"""Class activation maps whose weights come from a further sweep over variants of every pass and its activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from xai_fast.core.indices import known
from xai_fast.core.layers import Reading
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.samplers.passes import Passes

from .cam import Draw, Fuse, Grid, fused, grid_of, weighted_channels


class AbstractPassesCAM(ABC):
    """Keeps what the layers return in every pass, and draws a pass once its weights are known.

    Args:
        passes: of all inputs.
        readings: how what each layer returns is a grid.
        native: whether maps stay on the layer's grid (the largest of several).
        fuse: how the maps of several layers become one.
        eigen: whether the map is the first principal component of the weighted activations.
        relu: whether it is rectified.
    """

    def __init__(
        self,
        passes: Passes,
        readings: Sequence[Reading],
        *,
        native: bool,
        fuse: Fuse,
        eigen: bool,
        relu: bool,
    ) -> None:
        self.passes, self._readings, self._native = passes, readings, native
        self._fuse: Fuse = fuse
        self._eigen, self._relu = eigen, relu
        self._activations: dict[int, list[Tensor]] = {}  # (C, *s) of each layer, by pass
        self._targets = 1
        self._total: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Keeps the clean passes' activations."""
        self._targets = answers.scores.shape[1]
        self._keep(self.passes.of_clean(known(sample)), answers)

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Keeps the augmented passes' activations."""
        self._keep(self.passes.of_variants(known(rows)), answers)

    def finish(self) -> Tensor:
        """(N, K, 1, *size)."""
        for number in list(self._activations):
            self._draw(number, self._weights(number))
        assert self._total is not None
        return (self._total / self.passes.each).unsqueeze(2)

    @abstractmethod
    def _weights(self, number: int) -> list[Tensor]:
        """The channels' weights (K, C) in one pass, for each layer."""

    def _keep(self, numbers: Tensor, answers: Answers) -> None:
        grids = [
            grid_of(response, reading).activation
            for response, reading in zip(answers.responses, self._readings, strict=True)
        ]
        for row, number in enumerate(numbers.tolist()):
            self._activations[number] = [grid[row].clone() for grid in grids]

    def _size_of(self, activations: Sequence[Tensor]) -> tuple[int, ...]:
        """The extents of a drawn map: those of the input, or of the largest grid."""
        if not self._native:
            return tuple(self.passes.inputs.shape[2:])
        return max((tuple(one.shape[1:]) for one in activations), key=lambda size: torch.Size(size).numel())

    def _draw(self, number: int, weights: Sequence[Tensor]) -> None:
        """Adds the map of one pass to those of its input, and lets its activations go."""
        draw: Draw = weighted_channels(lambda grid: weights[grid.place][None], eigen=self._eigen, relu=self._relu)
        activations = self._activations.pop(number)
        grids = [
            Grid(activation[None], None, None, targets=self._targets, place=place)
            for place, activation in enumerate(activations)
        ]
        size = self._size_of(activations)
        (found,) = fused(grids, draw, size, self._fuse)
        found = found.flip(-1) if self.passes.mirrored(number) else found
        if self._total is None:
            self._total = found.new_zeros(len(self.passes.inputs), *found.shape)
        self._total[number // self.passes.each] += found


class SmoothedGradients(AbstractPassesCAM):
    """Grad-CAM++'s weights from the mean of the gradient, of its square and its cube over noisy copies of a pass.

    Args:
        per_pass: how many copies of each; the rest as `AbstractPassesCAM`.
    """

    def __init__(self, per_pass: int, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self._per_pass = per_pass
        self._moments: dict[int, list[list[Tensor]]] = {}
        self._found: dict[int, list[Tensor]] = {}

    def take(self, rows: Tensor, answers: Answers) -> None:
        """Adds up the powers of the gradients of noisy rows; those of one pass follow each other."""
        grids = [
            grid_of(response, reading) for response, reading in zip(answers.responses, self._readings, strict=True)
        ]
        numbers, counts = (known(rows) // self._per_pass).unique_consecutive(return_counts=True)
        stops = counts.cumsum(0).tolist()
        for number, start, stop in zip(numbers.tolist(), [0, *stops], stops, strict=False):
            sums = []
            for grid in grids:
                assert grid.gradient is not None
                gradient = grid.gradient[start:stop]
                gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                sums.append([gradient.pow(power).sum(0) for power in (1, 2, 3)])
            before = self._moments.get(number)
            self._moments[number] = (
                sums
                if before is None
                else [[a + b for a, b in zip(one, more, strict=True)] for one, more in zip(before, sums, strict=True)]
            )

    def _weights(self, number: int) -> list[Tensor]:
        weights = []
        for activation, sums in zip(self._activations[number], self._moments.pop(number), strict=True):
            first, second, third = (part / self._per_pass for part in sums)  # (K, C, *s)
            total = activation.to(first).flatten(1).sum(1).view(1, -1, *[1] * (activation.ndim - 1))
            below = 2 * second + total * third
            share = torch.where(below == 0, 0.0, second / torch.where(below == 0, 1.0, below))
            weights.append((share * first.relu()).flatten(2).sum(2))
        return weights

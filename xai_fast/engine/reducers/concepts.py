"""Concepts of a layer over a batch: what it returns for all inputs, factorised, and what each concept does alone."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_fast.core.layers import Reading
from xai_fast.engine.estimators.factorization import factorized
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.evaluate.replaced import LayerReplaced, ScoresOf
from xai_fast.engine.recipe import Sweep
from xai_fast.engine.samplers.repeated import Repeated


class Concepts:
    """Factorises what a layer returns for all clean inputs together.

    Args:
        inputs: (N, C, *S) on the model's device.
        layer: its name.
        reading: how what it returns is a grid.
        count: how many concepts.
        seed: of the factorisation.
        scores_of: finds the class scores (rows, K) in a raw output.

    Attributes:
        concepts: (k, C), each as the layer returns it where it is strongest and nothing else is there.
        gains: (k, K) by how much the class scores rise when the layer returns that everywhere, over none of it; (k, 0)
            where the output is no table of class scores.
        explained: the share of the layer's squares that the concepts explain.
    """

    concepts: Tensor
    gains: Tensor
    explained: float

    def __init__(
        self, inputs: Tensor, layer: str, reading: Reading, *, count: int, seed: int, scores_of: ScoresOf
    ) -> None:
        self._inputs, self._layer, self._reading = inputs, layer, reading
        self._count, self._seed, self._scores_of = count, seed, scores_of
        self._grids: list[Tensor] = []
        self._like: Tensor | None = None  # one row as the layer returns it
        self._maps: Tensor | None = None
        self._found: list[Tensor] = []

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Keeps what the layer returns."""
        activation = answers.responses[0].activation
        if self._like is None:
            self._like = activation[:1].clone()
        self._grids.append(self._reading(activation).to(torch.promote_types(activation.dtype, torch.float32)).clone())

    def update(self, rows: Tensor, answers: Answers) -> None:
        """A recipe with this reducer has no variants of the inputs."""
        raise AssertionError("Concepts was handed a variant")

    def then(self, _scores: Tensor) -> Sweep | None:
        """One row for a layer that returns nothing, and one per concept; asked about once."""
        if self._maps is not None:
            return None
        vectors = self._factorize()
        assert self._like is not None
        axis = self._reading.channel_axis(self._like)
        shape = [len(vectors), *[1] * (self._like.ndim - 1)]
        shape[axis] = vectors.shape[1]
        everywhere = vectors.to(self._like.dtype).view(shape).expand(len(vectors), *self._like.shape[1:])
        question = LayerReplaced(self._layer, everywhere, self._scores_of)
        return Sweep(Repeated(self._inputs[:1], len(vectors)), question, self._take)

    def finish(self) -> Tensor:
        """(N, 1, k, *s): each concept's strength, as a share of its largest anywhere in the batch."""
        scores = torch.cat(self._found)
        self.gains = scores[1:] - scores[:1]
        assert self._maps is not None
        return self._maps[:, None]

    def _take(self, _rows: Tensor, answers: Answers) -> None:
        self._found.append(answers.scores)

    def _factorize(self) -> Tensor:
        """Keeps the maps; what the layer returns where there is nothing, and where there is one concept (1 + k, C)."""
        grids = torch.cat(self._grids)
        self._grids.clear()
        finite = grids.flatten(1).isfinite().all(1)  # the loop names the other inputs when it sees their maps
        channels = grids[finite].movedim(1, -1)
        table = channels.flatten(0, -2)  # (N · positions, C)
        self._maps = grids.new_full((len(grids), self._count, *grids.shape[2:]), float("nan"))
        if not len(table):
            self.concepts, self.explained = table.new_zeros(self._count, table.shape[1]), 0.0
            return table.new_zeros(1 + self._count, table.shape[1])
        # Where a channel is negative anywhere its least value is what nothing is; behind a ReLU nothing is 0.
        none = table.amin(0).clamp_max(0)
        factors = factorized(table - none, self._count, self._seed)
        most = factors.strengths.amax(0)
        shares = factors.strengths / torch.where(most > 0, most, 1.0)
        self._maps[finite] = shares.unflatten(0, channels.shape[:-1]).movedim(-1, 1)
        self.concepts, self.explained = none + factors.concepts * most[:, None], factors.explained
        return torch.cat([none[None], self.concepts])

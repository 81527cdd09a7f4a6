"""What the model answers when a layer returns what it is told to, whatever went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xai_fast.core.prepared import Prepared, widened
from xai_fast.core.scores import score_table
from xai_fast.engine.replay.tail import with_layer

from .answers import Answers, ScoreOf, Tails
from .watch import by_own_forward

ScoresOf = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class LayerReplaced:
    """All class scores of rows whose layer returns something else.

    Attributes:
        layer: its name.
        activations: (R, ...), what it returns for each of all rows.
        scores_of: finds the class scores (rows, K) in a raw output.
    """

    layer: str
    activations: Tensor
    scores_of: ScoresOf
    forwards: int = field(default=1, init=False)
    backwards: int = field(default=0, init=False)
    together: int = field(default=1, init=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The one."""
        return (self.layer,)

    @torch.no_grad()
    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K); (rows, 0) where the output is no table of class scores."""
        told = self.activations[rows.to(self.activations.device)]
        told = told.contiguous(memory_format=torch.preserve_format).clone()
        tail = tails.get(self.layers)
        if tail is not None:
            raw = tail.replaced(tail.keep(batch[:1]), 0, told)  # all rows are of one input
        else:
            with by_own_forward(prepared):
                raw = with_layer(prepared, self.layer, batch, lambda _activation: told)
        try:
            return Answers(score_table(widened(raw), len(batch), self.scores_of))
        except (TypeError, ValueError):
            return Answers(told.new_zeros(len(batch), 0, dtype=torch.float32))

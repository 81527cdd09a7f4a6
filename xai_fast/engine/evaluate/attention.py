"""The attention of every layer of a transformer, as its own forward computes it, and the scores' gradients by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xai_fast.core import autograd
from xai_fast.core.attention import AttentionWatch, by_head, leaf, refusal
from xai_fast.core.prepared import Prepared
from xai_fast.engine.reach import reaches, refuse_unreached

from .answers import Answers, Response, ScoreOf, Tails
from .watch import by_own_forward


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What the heads of each layer look at.

    Attributes:
        fold: from probabilities (rows, heads, T, T), and their gradients of the same shape where they are asked for,
            to what is kept of a layer (rows, T, T).
        backwards: 1 for the gradients, one pass per score; 0 without.
    """

    fold: Callable[[Tensor, Tensor | None], Tensor]
    backwards: int = 0
    forwards: int = field(default=1, init=False)
    together: int = field(default=1, init=False)
    layers: tuple[str, ...] = field(default=(), init=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K), and a response per layer: (rows, K, T, T), or (rows, 1, T, T) without gradients."""
        if not self.backwards:
            keep = AttentionWatch(keep=lambda own: self.fold(by_head(own), None))
            with torch.no_grad(), by_own_forward(prepared), keep as watch:
                raw = prepared.by_itself(batch, watch.begin)
            scores = score_of(raw)
            return Answers(scores, responses=tuple(Response(own[:, None]) for own in _sequence(watch, len(batch))))
        with torch.enable_grad():
            with by_own_forward(prepared), AttentionWatch(leaf) as watch:
                raw = prepared.by_itself(batch, watch.begin)
            scores = score_of(raw)
            every = [by_head(own) for own in _sequence(watch, len(batch))]
            kept = [
                [self.fold(own.detach(), gradient) for own, gradient in zip(every, gradients, strict=True)]
                for gradients in _per_score(scores, every)
            ]
        responses = tuple(Response(torch.stack(parts, 1)) for parts in zip(*kept, strict=True))
        return Answers(scores.detach(), responses=responses)


def _sequence(watch: AttentionWatch, rows: int) -> list[Tensor]:
    """What was kept of each layer's attention."""
    reason = refusal(watch.found, rows)
    if reason is not None:  # the row that was looked at showed none
        raise ValueError(f"`model` cannot be explained by its attention: {reason}")
    return [one.kept for one in watch.found]


def _per_score(scores: Tensor, at: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients of each column of scores (rows, K), one backward after the other, so that few are in memory."""
    for k in range(scores.shape[1]):
        if not scores.requires_grad:
            refuse_unreached("its attention")
        gradients = autograd.grad(scores[:, k].sum(), at, retain_graph=True, allow_unused=True)
        if not any(
            gradient is not None and reaches(gradient, scores, own) for gradient, own in zip(gradients, at, strict=True)
        ):
            refuse_unreached("its attention")
        yield [
            torch.zeros_like(own) if gradient is None else gradient for own, gradient in zip(at, gradients, strict=True)
        ]

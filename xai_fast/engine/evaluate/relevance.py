"""The gradient of the scores under AttnLRP's rules, through the model's own forward, by the input or by a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core.prepared import Prepared
from xai_fast.engine.gradients.relevance import relevance, uncovered

from .answers import Answers, Response, ScoreOf, Tails
from .gradient import gradients_of
from .watch import by_own_forward, in_order, per_row, watched


@dataclass(frozen=True)
class Relevance:
    """What each score's gradient is where every step of the forward follows its rule.

    The rules end with the model: from its raw output to the score it is the plain gradient.

    Attributes:
        layers: the layer by whose output it is taken; empty for the input.
    """

    layers: tuple[str, ...] = ()
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=1, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K), and gradient (rows, K, C, *S) or a response."""
        with torch.enable_grad():
            with by_own_forward(prepared), _frozen(prepared.module):
                if self.layers:
                    with watched(prepared, self.layers) as captured, relevance():
                        raw = prepared.by_itself(batch, captured.begin)
                    at = in_order(captured, self.layers)
                else:
                    with relevance():
                        raw = prepared.by_itself(batch.requires_grad_().clone())
                    at = [batch]
            scores = score_of(raw)
            reason = uncovered(scores, raw, at)
            if reason is not None:
                raise ValueError(
                    f"`model` cannot be explained by AttnLRP: its forward has {reason}; take one of linear layers, "
                    "attention, normalisation and activations that are 0 at 0, or a method such as InputXGradient"
                )
            gradients = gradients_of(scores, at, [f"layer {name!r}" for name in self.layers] or ["the input"])
        if not self.layers:
            return Answers(scores.detach(), gradients[0])
        responses = [Response(a.detach(), g) for a, g in zip(at, gradients, strict=True)]
        return Answers(scores.detach(), responses=per_row(responses, self.layers, len(batch)))


@contextmanager
def _frozen(model: Callable[[Tensor], Any]) -> Iterator[None]:
    """What asks for a gradient inside depends on the input: no weight does, also where the caller's own object runs."""
    asking = [weight for weight in model.parameters() if weight.requires_grad] if isinstance(model, nn.Module) else []
    try:
        for weight in asking:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)

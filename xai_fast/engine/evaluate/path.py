"""Gradients at a layer on paths: between two activations, or where inputs lie between two inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.core.prepared import Prepared
from xai_fast.engine.replay.tail import Kept, Tail, with_layer

from .answers import Answers, Response, ScoreOf, Tails
from .gradient import gradients_of
from .layer import LayerResponse
from .watch import by_own_forward, in_order, per_row, watched


@dataclass(frozen=True)
class LayerPath:
    """The weighted gradient at a layer along the straight line from one activation to the input's own.

    Everything beside the layer stays as it is for the input.

    Attributes:
        layer: its name.
        alphas: float64 (P,), the points of the path: 0 is where it begins, 1 the input's activation.
        weights: float64 (P,), of each point's gradient.
        references: from rows to the inputs (rows, C, *S) at whose activation the path begins; None: at zero.
        at_once: points that run together where there is one row; several rows take one point at a time.
    """

    layer: str
    alphas: Tensor
    weights: Tensor
    references: Callable[[Tensor], Tensor] | None = None
    at_once: int = 8
    together: int = field(default=1, init=False, repr=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The one."""
        return (self.layer,)

    @property
    def forwards(self) -> int:
        """Both ends, every point, and the reference input."""
        return 2 + len(self.alphas) + (self.references is not None)

    @property
    def backwards(self) -> int:
        """Every point."""
        return len(self.alphas)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K) of both ends, and a response whose gradient is the weighted sum, with a reference."""
        tail = tails.get(self.layers)
        line = _Line(prepared, self.layer, tail, batch)
        with torch.no_grad():
            scores = score_of(line.raw)
            start = torch.zeros_like(line.activation)
            if self.references is not None:
                start = _activation(prepared, self.layer, tail, self.references(rows))
            references = score_of(line.at(start))
        alphas, weights = beside(self.alphas, start).to(start.dtype), beside(self.weights, start)
        size = self.at_once if len(rows) == 1 and not prepared.alone else 1
        total = None
        for alpha, weight in zip(alphas.split(size), weights.split(size), strict=True):
            times = len(alpha)
            share = alpha.repeat_interleave(len(rows)).view(-1, *[1] * (start.ndim - 1))
            positions = torch.arange(len(rows), device=start.device).repeat(times)
            point = torch.lerp(start[positions], line.activation[positions], share).requires_grad_()
            with torch.enable_grad():
                scored = score_of.repeated(times)(line.at(point))
                (gradient,) = gradients_of(scored, [point], (f"layer {self.layer!r}",))
            part = torch.einsum("p,p...->...", weight, gradient.double().unflatten(0, (times, len(rows))))
            total = part if total is None else total + part
        assert total is not None
        response = Response(line.activation, total.to(start.dtype), reference=start)
        return Answers(scores, responses=per_row([response], self.layers, len(rows)), references=references)


class _Line:
    """A model in which one layer's output is replaced, for the rows of one batch.

    Attributes:
        activation: (rows, ...) what the layer returns for the batch.
        raw: the raw output for the batch.
    """

    @torch.no_grad()
    def __init__(self, prepared: Prepared, layer: str, tail: Tail | None, batch: Tensor) -> None:
        self._prepared, self._layer, self._tail = prepared, layer, tail
        self._kept: Kept | None = None
        self._batch = batch.clone(memory_format=torch.preserve_format)
        if tail is not None:
            self._kept = tail.keep(batch)
            self.activation, self.raw = self._kept.activation, tail.clean(self._kept)
        else:
            self.activation, self.raw = _seen(prepared, layer, batch)

    def at(self, activation: Tensor) -> Any:
        """The raw output with the layer's replaced, rows repeated where there are more of them; under autograd."""
        times = len(activation) // len(self._batch)
        if self._tail is not None and self._kept is not None:
            return self._tail.moved(self._kept, activation, times)
        batch = self._batch.repeat(times, *[1] * (self._batch.ndim - 1))
        with by_own_forward(self._prepared):
            return with_layer(self._prepared, self._layer, batch, lambda _: activation.clone())


@torch.no_grad()
def _activation(prepared: Prepared, layer: str, tail: Tail | None, inputs: Tensor) -> Tensor:
    """What a layer returns for inputs (rows, C, *S)."""
    batch = prepared.empty(len(inputs), inputs).copy_(inputs)
    return tail.keep(batch).activation if tail is not None else _seen(prepared, layer, batch)[0]


def _seen(prepared: Prepared, layer: str, batch: Tensor) -> tuple[Tensor, Any]:
    """What a layer returns, and the raw output, by the module's own forward."""
    with watched(prepared, (layer,), detach=True) as captured, by_own_forward(prepared):
        raw = prepared.module(batch)
    return in_order(captured, (layer,))[0].detach(), raw


@dataclass(frozen=True)
class LayerBetween:
    """The gradient at a layer where inputs lie between two inputs, and what the layer returns for those two.

    Attributes:
        layer: its name.
        ends: from rows to the two inputs (rows, C, *S): where the line ends, and where it begins.
    """

    layer: str
    ends: Callable[[Tensor], tuple[Tensor, Tensor]]
    forwards: int = field(default=3, init=False, repr=False)
    backwards: int = field(default=1, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The one."""
        return (self.layer,)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K), and a response whose activation and reference are those of the ends."""
        answers = LayerResponse(self.layers)(prepared, batch, score_of, tails, rows)
        tail = tails.get(self.layers)
        end, start = (_activation(prepared, self.layer, tail, inputs) for inputs in self.ends(rows))
        response = Response(end, answers.responses[0].gradient, reference=start)
        return Answers(answers.scores, responses=(response,))

"""What the model is asked about a batch of variants: a score, an input gradient, or how a layer responds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from xai_fast.core.graph.captured import own_forwards
from xai_fast.core.layers import first_tensor
from xai_fast.core.prepared import Prepared

from .replay.tail import Kept, Tail, with_first

ScoreOf = Callable[[Any], Tensor]
Tails = Mapping[tuple[str, ...], Tail]


@dataclass(frozen=True)
class Response:
    """A layer on a batch.

    Attributes:
        activation: (rows, ...) as the layer returns it.
        gradient: (rows, K, ...) of the scores by the activation.
        falls: (rows, K, V) how far each score falls under each change of the layer's output that was asked about.
        kept: what a tail needs to change the layer's output.
    """

    activation: Tensor
    gradient: Tensor | None = None
    falls: Tensor | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Answers:
    """What came back for a batch: `scores` (rows, K), and what else was asked for, all detached.

    Attributes:
        scores: (rows, K).
        gradient: (rows, K, C, *S) of the scores by the input, in the scores' dtype or the batch's.
        responses: one per layer that was asked for.
    """

    scores: Tensor
    gradient: Tensor | None = None
    responses: tuple[Response, ...] = ()

    def finite(self) -> Tensor:
        """Which rows hold neither NaN nor Inf: BoolTensor (rows,) on the CPU."""
        of_layers = (part for response in self.responses for part in (response.gradient, response.falls))
        parts = [self.scores, self.gradient, *of_layers]
        # A sum over a row is finite only if every element is (barring opposite infinities, which give NaN).
        sums = [part.flatten(1).sum(1, dtype=torch.float64) for part in parts if part is not None]
        return torch.stack(sums).sum(0).isfinite().cpu()


class Evaluate(Protocol):
    """A question to the model."""

    backwards: ClassVar[int]
    """Rows run backward per row and score."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are looked at."""
        ...

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails) -> Answers:
        """Runs `batch` (rows, C, *S), ours to use up, and reads its scores (rows, K) with `score_of`."""
        ...


@dataclass(frozen=True)
class Score:
    """The scores alone: one forward."""

    backwards: ClassVar[int] = 0

    @property
    def layers(self) -> tuple[str, ...]:
        """None."""
        return ()

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails) -> Answers:
        """Scores (rows, K)."""
        with torch.no_grad():
            return Answers(score_of(prepared(batch)))


@dataclass(frozen=True)
class InputGradient:
    """The gradient of each score by the input: one forward, and one backward per score."""

    backwards: ClassVar[int] = 1

    @property
    def layers(self) -> tuple[str, ...]:
        """None."""
        return ()

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails) -> Answers:
        """Scores (rows, K) and gradient (rows, K, C, *S)."""
        with torch.enable_grad():
            batch.requires_grad_()
            # The copy is for models that write into their input, which autograd forbids on a leaf.
            scores = score_of(prepared(batch.clone()))
        (gradient,) = _gradients(scores, [batch])
        return Answers(scores.detach(), gradient)


@dataclass(frozen=True)
class LayerResponse:
    """Activations of layers and the scores' gradients by them: what precedes the first layer builds no graph."""

    layers: tuple[str, ...]
    backwards: ClassVar[int] = 1

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails) -> Answers:
        """Scores (rows, K) and one response per layer."""
        tail = tails.get(self.layers)
        if tail is not None and tail.linear:
            return self._closed(tail, tail.keep(batch), score_of)
        with torch.enable_grad():
            if tail is not None:
                raw, activations = tail.differentiable(tail.keep(batch))
                scores = score_of(raw)
            else:
                with _watched(prepared, self.layers) as captured:
                    scores = score_of(prepared(batch))
                activations = _in_order(captured, self.layers)
        gradients = _gradients(scores, activations)
        responses = [Response(a.detach(), g) for a, g in zip(activations, gradients, strict=True)]
        return Answers(scores.detach(), responses=_per_row(responses, self.layers, len(batch)))

    def _closed(self, tail: Tail, kept: Kept, score_of: ScoreOf) -> Answers:
        """Behind a mean over positions and a linear layer only the scores' formula is differentiated, if it is one."""
        raw = tail.clean(kept)
        columns = getattr(score_of, "columns", None)
        picked = columns(raw) if columns is not None else None
        if picked is not None:
            scores, by_output = score_of(raw), nn.functional.one_hot(picked, raw.shape[1]).to(raw.dtype)
        else:
            with torch.enable_grad():
                leaf = raw.detach().requires_grad_()
                scores = score_of(leaf)
            (by_output,) = _gradients(scores, [leaf])
        response = Response(kept.activation, tail.spread(by_output, kept))
        return Answers(scores.detach(), responses=(response,))


@dataclass(frozen=True)
class LayerActivation:
    """What layers return, and how the scores fall when that is changed: forwards only."""

    layers: tuple[str, ...]
    backwards: ClassVar[int] = 0

    @torch.no_grad()
    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails) -> Answers:
        """Scores (rows, K) and one response per layer, without gradient."""
        own = [tails.get((layer,)) for layer in self.layers]
        if any(tail is None for tail in own):
            with _watched(prepared, self.layers, detach=True) as captured, by_own_forward(prepared):
                scores = score_of(prepared.module(batch))
            responses = [Response(activation) for activation in _in_order(captured, self.layers)]
            return Answers(scores, responses=_per_row(responses, self.layers, len(batch)))
        # A run may write into its batch, so that all but the last get copies.
        batches = [batch.clone(memory_format=torch.preserve_format) for _ in own[1:]] + [batch]
        kept = [tail.keep(rows) for tail, rows in zip(own, batches, strict=True) if tail is not None]
        assert own[0] is not None
        scores = score_of(own[0].clean(kept[0]))
        return Answers(scores, responses=tuple(Response(one.activation, kept=one) for one in kept))


def _gradients(scores: Tensor, at: list[Tensor]) -> list[Tensor]:
    """The gradient of every column of `scores` (rows, K) by each of the tensors (rows, ...): (rows, K, ...)."""
    if not scores.requires_grad:
        raise ValueError(
            "`target` does not depend differentiably on the input or layer; choose another target or layer"
        )
    columns = []
    for k in range(scores.shape[1]):
        more = k + 1 < scores.shape[1]
        gradients = torch.autograd.grad(scores[:, k].sum(), at, retain_graph=more, allow_unused=True)
        columns.append([torch.zeros_like(t) if g is None else g for t, g in zip(at, gradients, strict=True)])
    return [torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)]


def _in_order(captured: dict[str, Tensor], layers: tuple[str, ...]) -> list[Tensor]:
    missing = [name for name in layers if name not in captured]
    if missing:
        raise ValueError(f"`layer` {missing[0]!r} does not run in this model's forward; choose another")
    return [captured[name] for name in layers]


def _per_row(responses: list[Response], layers: tuple[str, ...], rows: int) -> tuple[Response, ...]:
    """The responses, if each layer returns one entry per row."""
    for response, layer in zip(responses, layers, strict=True):
        if response.activation.ndim == 0 or len(response.activation) != rows:
            shape = tuple(response.activation.shape)
            raise ValueError(f"`layer` {layer!r} returns {shape} for {rows} inputs, not one entry each; choose another")
    return tuple(responses)


def by_own_forward(prepared: Prepared) -> AbstractContextManager[None]:
    """Every module of the model runs its own forward inside, so that hooks on layers fire."""
    return own_forwards(prepared.module) if isinstance(prepared.module, nn.Module) else nullcontext()


@contextmanager
def _watched(prepared: Prepared, layers: tuple[str, ...], *, detach: bool = False) -> Iterator[dict[str, Tensor]]:
    """Collects the layers' activations as they run; the first one cuts the graph, so that the prefix keeps none."""
    captured: dict[str, Tensor] = {}

    def capture(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_layer: nn.Module, _args: Any, output: Any) -> Any:
            if name in captured:
                raise ValueError(f"`layer` {name!r} runs more than once in a forward; choose a layer that runs once")
            activation = first_tensor(output)
            if not activation.requires_grad and not detach:
                activation = activation.detach().requires_grad_()
            captured[name] = activation
            # What follows may write into it in place, so it goes on with a copy.
            return with_first(output, activation.clone())

        return hook

    handles = [prepared.layer(name).register_forward_hook(capture(name)) for name in layers]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()

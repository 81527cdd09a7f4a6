"""What the model is asked about a batch of variants: a score, an input gradient, or how a layer responds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from xai_fast.core.layers import first_tensor
from xai_fast.core.prepared import Prepared

ScoreOf = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Response:
    """A layer on a batch: `activation` (rows, ...) as the layer returns it, `gradient` (rows, K, ...) of the scores."""

    activation: Tensor
    gradient: Tensor


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
        parts = [self.scores, self.gradient, *(response.gradient for response in self.responses)]
        # A sum over a row is finite only if every element is (barring opposite infinities, which give NaN).
        sums = [part.flatten(1).sum(1, dtype=torch.float64) for part in parts if part is not None]
        return torch.stack(sums).sum(0).isfinite().cpu()


class Evaluate(Protocol):
    """A question to the model."""

    backwards: ClassVar[int]
    """Rows run backward per row and score."""

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> Answers:
        """Runs `batch` (rows, C, *S), ours to use up, and reads its scores (rows, K) with `score_of`."""
        ...


@dataclass(frozen=True)
class Score:
    """The scores alone: one forward."""

    backwards: ClassVar[int] = 0

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> Answers:
        """Scores (rows, K)."""
        with torch.no_grad():
            return Answers(score_of(prepared(batch)))


@dataclass(frozen=True)
class InputGradient:
    """The gradient of each score by the input: one forward, and one backward per score."""

    backwards: ClassVar[int] = 1

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> Answers:
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

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> Answers:
        """Scores (rows, K) and one response per layer."""
        with torch.enable_grad(), _captured(prepared, self.layers) as captured:
            scores = score_of(prepared(batch))
        missing = [name for name in self.layers if name not in captured]
        if missing:
            raise ValueError(f"`layer` {missing[0]!r} does not run in this model's forward; choose another")
        activations = [captured[name] for name in self.layers]
        gradients = _gradients(scores, activations)
        responses = [Response(a.detach(), g) for a, g in zip(activations, gradients, strict=True)]
        return Answers(scores.detach(), responses=tuple(responses))


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


@contextmanager
def _captured(prepared: Prepared, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Collects the layers' activations as they run; the first one cuts the graph, so that the prefix keeps none."""
    captured: dict[str, Tensor] = {}

    def capture(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_layer: nn.Module, _args: Any, output: Any) -> Any:
            if name in captured:
                raise ValueError(f"`layer` {name!r} runs more than once in a forward; choose a layer that runs once")
            activation = first_tensor(output)
            if not activation.requires_grad:
                activation = activation.detach().requires_grad_()
            captured[name] = activation
            # What follows may write into it in place, so it goes on with a copy.
            return _with_first(output, activation.clone())

        return hook

    handles = [prepared.layer(name).register_forward_hook(capture(name)) for name in layers]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _with_first(output: Any, activation: Tensor) -> Any:
    """`output` with its first floating tensor replaced."""
    if isinstance(output, Tensor):
        return activation
    found = first_tensor(output)
    if isinstance(output, dict):
        return type(output)((key, activation if value is found else value) for key, value in output.items())
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(activation if value is found else value for value in output))
    return type(output)(activation if value is found else value for value in output)

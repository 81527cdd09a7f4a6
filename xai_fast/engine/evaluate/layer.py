"""How layers respond to a batch: what they return, and the gradient of the scores by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from xai_fast.core import autograd
from xai_fast.core.prepared import Prepared
from xai_fast.engine.gradients.backward import Rule
from xai_fast.engine.replay.tail import Kept, Tail

from .agreement import backward_for
from .answers import Answers, Evaluate, Response, ScoreOf, Tails
from .gradient import differentiable, gradients_of, passing, warn_without_rectifiers
from .watch import by_own_forward, in_order, per_row, watched


@dataclass(frozen=True)
class LayerResponse:
    """Activations of layers and the scores' gradients by them: what precedes the first layer builds no graph.

    Attributes:
        layers: their names.
        rule: how a ReLU passes gradients.
    """

    layers: tuple[str, ...]
    rule: Rule = "gradient"
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=1, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K) and one response per layer."""
        tail = tails.get(self.layers) if self.rule == "gradient" else None
        if tail is not None and tail.linear:
            return self._closed(tail, tail.keep(batch), score_of)
        if self.rule != "gradient":
            backward = backward_for(prepared, tuple(batch.shape[1:]), self.layers, self.rule)
            if not isinstance(backward, str):
                run = backward(batch)
                scores = differentiable(score_of, run.raw)
                warn_without_rectifiers(self.rule, backward.rectifiers)
                return self._answers(scores, run.activations, run.gradients(scores), len(batch))
        with torch.enable_grad(), passing(self.rule):
            if tail is not None:
                raw, activations = tail.differentiable(tail.keep(batch))
                scores = score_of(raw)
            elif self.rule == "gradient" and (ran := prepared.already(batch, self.layers)) is not None:
                raw, activations = ran
                scores = score_of(raw)
            else:
                with watched(prepared, self.layers) as captured:
                    scores = score_of(prepared(batch, captured.begin))
                activations = in_order(captured, self.layers)
            gradients = gradients_of(scores, activations, [f"layer {name!r}" for name in self.layers])
        return self._answers(scores, activations, gradients, len(batch))

    def _answers(self, scores: Tensor, activations: list[Tensor], gradients: list[Tensor], rows: int) -> Answers:
        responses = [Response(a.detach(), g) for a, g in zip(activations, gradients, strict=True)]
        return Answers(scores.detach(), responses=per_row(responses, self.layers, rows))

    def _closed(self, tail: Tail, kept: Kept, score_of: ScoreOf) -> Answers:
        """Behind a mean over positions and a linear layer only the scores' formula is differentiated, if it is one."""
        raw = tail.clean(kept)
        picked = score_of.columns(raw)
        if picked is not None:
            scores, by_output = score_of(raw), nn.functional.one_hot(picked, raw.shape[1]).to(raw.dtype)
        else:
            leaf = raw.detach().requires_grad_()
            scores = differentiable(score_of, leaf)
            (by_output,) = gradients_of(scores, [leaf], ("the output",))
        response = Response(kept.activation, tail.spread(by_output, kept))
        return Answers(scores.detach(), responses=(response,))


@dataclass(frozen=True)
class LayerActivation:
    """What layers return, and how the scores fall when that is changed: forwards only."""

    layers: tuple[str, ...]
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=0, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    @torch.no_grad()
    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K) and one response per layer, without gradient."""
        own = [tails.get((layer,)) for layer in self.layers]
        if (ran := prepared.already(batch, self.layers)) is not None:
            raw, activations = ran
            responses = [Response(activation.detach()) for activation in activations]
            return Answers(score_of(tree_map_only(Tensor, Tensor.detach, raw)), responses=tuple(responses))
        if any(tail is None for tail in own):
            with watched(prepared, self.layers, detach=True) as captured, by_own_forward(prepared):
                scores = score_of(prepared.by_itself(batch, captured.begin))
            responses = [Response(activation) for activation in in_order(captured, self.layers)]
            return Answers(scores, responses=per_row(responses, self.layers, len(batch)))
        # A run may write into its batch, so that all but the last get copies.
        batches = [batch.clone(memory_format=torch.preserve_format) for _ in own[1:]] + [batch]
        kept = [tail.keep(rows) for tail, rows in zip(own, batches, strict=True) if tail is not None]
        assert own[0] is not None
        scores = score_of(own[0].clean(kept[0]))
        return Answers(scores, responses=tuple(Response(one.activation, kept=one) for one in kept))


@dataclass(frozen=True)
class LayerCurvature:
    """Activations of layers, the scores' gradients by them, and the scores' Hessians times them.

    Runs backward twice, through the model's own forward: a piecewise linear network has no curvature, any other has.
    """

    layers: tuple[str, ...]
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=2, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K) and one response per layer."""
        # Fused attention has no second derivative; its formula in torch's own operators has.
        with torch.enable_grad(), by_own_forward(prepared), sdpa_kernel(SDPBackend.MATH):
            with watched(prepared, self.layers) as captured:
                scores = score_of(prepared.module(batch))
            activations = in_order(captured, self.layers)
            names = [f"layer {name!r}" for name in self.layers]
            gradients = gradients_of(scores, activations, names, twice=True)
            products = [
                [_by_itself(gradient[:, k], at) for k in range(scores.shape[1])]
                for at, gradient in zip(activations, gradients, strict=True)
            ]
        responses = [
            Response(at.detach(), gradient.detach(), curvature=torch.stack(product, 1))
            for at, gradient, product in zip(activations, gradients, products, strict=True)
        ]
        return Answers(scores.detach(), responses=per_row(responses, self.layers, len(batch)))


def _by_itself(gradient: Tensor, at: Tensor) -> Tensor:
    """The derivative of <gradient, at>, the second one held fixed, by the second: (rows, ...)."""
    if not gradient.requires_grad:
        return torch.zeros_like(at)
    (product,) = autograd.grad(gradient, at, at.detach(), retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if product is None else product


@dataclass(frozen=True)
class BiasResponse:
    """The input with the scores' gradients by it, and every bias with those by what it has been added to.

    Of the model's own forward; the model must be prepared so that none of the biases is folded into another.

    Attributes:
        biases: (C,), one number per channel of what a module returns, by the module's name; one that runs more than
            once counts each time, one that does not run not at all.
    """

    biases: Mapping[str, Tensor]
    layers: tuple[str, ...] = field(default=(), init=False, repr=False)
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=1, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K); a response with the input, then one per bias, which stands at every position."""
        ran: list[tuple[Tensor, Tensor]] = []

        def taker(bias: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
            def take(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
                ran.append((bias, output))
                return output.clone()  # what follows may write into it in place

            return take

        assert isinstance(prepared.module, nn.Module)
        handles = [
            prepared.module.get_submodule(name).register_forward_hook(taker(bias)) for name, bias in self.biases.items()
        ]
        try:
            with torch.enable_grad(), by_own_forward(prepared):
                batch.requires_grad_()
                # The copy is for models that write into their input, which autograd forbids on a leaf.
                scores = score_of(prepared.module(batch.clone()))
        finally:
            for handle in handles:
                handle.remove()
        reached = [(bias, output) for bias, output in ran if output.requires_grad]
        names = ["the input", *[""] * len(reached)]
        own, *gradients = gradients_of(scores, [batch, *(output for _, output in reached)], names, unused=True)
        responses = [Response(batch.detach(), own)]
        for (bias, output), gradient in zip(reached, gradients, strict=True):
            spread = bias.to(output).view(-1, *[1] * (output.ndim - 2)).expand_as(output)
            responses.append(Response(spread, gradient))
        return Answers(scores.detach(), responses=tuple(responses))


@dataclass(frozen=True)
class Both:
    """Two questions about the same rows: scores and gradient by the first, responses of layers by the second."""

    first: Evaluate
    second: Evaluate
    together: int = field(default=1, init=False, repr=False)

    @property
    def forwards(self) -> int:
        """Of both."""
        return self.first.forwards + self.second.forwards

    @property
    def backwards(self) -> int:
        """Of both."""
        return self.first.backwards + self.second.backwards

    @property
    def layers(self) -> tuple[str, ...]:
        """Of the second; the first looks at none."""
        return self.second.layers

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """The first's answers with the responses of the second."""
        again = batch.clone(memory_format=torch.preserve_format)
        answers = self.first(prepared, batch, score_of, tails, rows)
        responses = self.second(prepared, again, score_of, tails, rows).responses
        return dataclasses.replace(answers, responses=responses)

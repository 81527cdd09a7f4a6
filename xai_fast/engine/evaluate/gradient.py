"""The gradient of the scores by the input, row by row or added up over rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xai_fast.core import autograd
from xai_fast.core.hooks import shadowed
from xai_fast.core.indices import both, distinct
from xai_fast.core.prepared import Prepared
from xai_fast.engine.gradients.backward import Rule, rectified
from xai_fast.engine.reach import leads_back, reaches, refuse_unreached, returning_none

from .agreement import backward_for
from .answers import Answers, ScoreOf, Tails


@dataclass(frozen=True)
class Summed:
    """Which rows' gradients are added up before they are handed on, and by what each is multiplied.

    Attributes:
        group: from rows (rows,) to the group of each, in the rows' order.
        weight: from rows (rows,) to float64 (rows,).
    """

    group: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class InputGradient:
    """The gradient of each score by the input: one forward, and one backward per score.

    Attributes:
        rule: how a ReLU passes gradients.
        summed: where only sums over rows are wanted. The first layer of a captured model then runs backward once per
            group of rows and not once per row.
    """

    rule: Rule = "gradient"
    summed: Summed | None = None
    layers: tuple[str, ...] = field(default=(), init=False, repr=False)
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=1, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K) and gradient (rows, K, C, *S), or (G, K, C, *S) where summed."""
        groups = position = weight = None
        if self.summed is not None:
            groups, position = distinct(both(self.summed.group, rows))
            weight = self.summed.weight(rows)
        backward = backward_for(prepared, tuple(batch.shape[1:]), (), self.rule)
        if isinstance(backward, str):
            scores, gradient = self._by_autograd(prepared, batch, score_of)
            if groups is not None and position is not None and weight is not None:
                gradient = _sums(gradient, weight, position, len(groups))
        else:
            run = backward(batch)
            scores = differentiable(score_of, run.raw)
            (gradient,) = run.gradients(scores, weight, position)
            warn_without_rectifiers(self.rule, backward.rectifiers)
        flat = ~gradient.any()
        if flat.is_cpu and flat:
            refuse_flat(prepared, batch, score_of)
        return Answers(scores.detach(), gradient, groups, flat=None if flat.is_cpu else flat)

    def _by_autograd(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), passing(self.rule):
            batch.requires_grad_()
            # The copy is for models that write into their input, which autograd forbids on a leaf.
            scores = score_of(prepared(batch.clone()))
            (gradient,) = gradients_of(scores, [batch], ("the input",))
        return scores, gradient


def refuse_flat(prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> None:
    """Where gradients are zero for a whole batch: raises, if the model can lead nothing else back to its input."""
    captured = prepared.captured.get(tuple(batch.shape[1:]))
    example = None if captured is None else captured.example
    leaf = (batch if example is None else example).detach().clone().requires_grad_()
    asked = score_of if example is None else score_of.of_first
    hooks_off = shadowed(prepared.module) if isinstance(prepared.module, nn.Module) else nullcontext()
    with torch.enable_grad(), hooks_off:
        scores = asked(prepared.module(leaf.clone()))
        if not (scores.requires_grad and leads_back(scores, leaf, returning_none(scores, leaf))):
            refuse_unreached("the input")


def differentiable(score_of: Callable[[Any], Tensor], raw: Any) -> Tensor:
    """The scores (rows, K) of a raw output whose tensors are leaves.

    Raises:
        ValueError: they do not depend on it.
    """
    with torch.enable_grad():
        scores = score_of(raw)
    _refuse_constant(scores)
    return scores


def gradients_of(
    scores: Tensor, at: list[Tensor], names: Sequence[str], *, twice: bool = False, unused: bool = False
) -> list[Tensor]:
    """The gradient of every column of `scores` (rows, K) by each of the tensors (rows, ...): (rows, K, ...).

    With `twice` they can be differentiated again; `unused` allows all tensors but the first to reach nothing.

    Raises:
        ValueError: there is no way from one of them to the scores; says its name.
    """
    _refuse_constant(scores)
    columns = []
    for k in range(scores.shape[1]):
        more = twice or k + 1 < scores.shape[1]
        total = scores[:, k].sum()
        gradients = autograd.grad(total, at, retain_graph=more, create_graph=twice, allow_unused=True)
        for name, tensor, gradient in zip(names[: 1 if unused else None], at, gradients, strict=not unused):
            if gradient is None or not reaches(gradient, scores, tensor):
                refuse_unreached(name)
        columns.append([torch.zeros_like(a) if g is None else g for a, g in zip(at, gradients, strict=True)])
    return [torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)]


def passing(rule: Rule) -> Any:
    """The context in which autograd passes gradients through a ReLU by a rule; warns where none ran."""
    return nullcontext() if rule == "gradient" else _Rectified(rule)


class _Rectified:
    def __init__(self, rule: Rule) -> None:
        self._rule: Rule = rule
        self._context = rectified(rule)

    def __enter__(self) -> None:
        self._met = self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)
        if error[0] is None:
            warn_without_rectifiers(self._rule, self._met.met)


def warn_without_rectifiers(rule: Rule, count: int) -> None:
    """Tells the user that a rule for ReLUs met none."""
    if rule != "gradient" and count == 0:
        warnings.warn(
            f"no ReLU ran in this model, so the {rule} rule changed nothing and the map is the plain gradient",
            stacklevel=2,
        )


def _refuse_constant(scores: Tensor) -> None:
    if not scores.requires_grad:
        refuse_unreached("the input or layer")


def _sums(gradient: Tensor, weight: Tensor, position: Tensor, groups: int) -> Tensor:
    """The weighted sums (G, K, ...) of gradients (rows, K, ...)."""
    weighted = gradient * weight.to(gradient).view(-1, *[1] * (gradient.ndim - 1))
    sums = gradient.new_zeros(groups, *gradient.shape[1:])
    return sums.index_add_(0, position.to(gradient.device), weighted)

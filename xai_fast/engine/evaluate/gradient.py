"""The gradient of the scores by the input, row by row or added up over rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from xai_fast.core.layout import LAYOUTS
from xai_fast.core.prepared import Prepared
from xai_fast.engine.backward import Backward, Rule, Run, backward_of, rectified
from xai_fast.ops import path_points

from .answers import Answers, ScoreOf, Tails

_FEWEST_POINTS = 3  # of which the two ends cost less than the points themselves


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
class Line:
    """Where each row lies on a straight line between two inputs.

    Attributes:
        sample: from rows (rows,) to the number of the line that each lies on.
        share: from rows (rows,) to float64 (rows,): 0 is where the line begins, 1 where it ends.
        ends: from numbers of lines to where they end and where they begin, each (lines, C, *S).
    """

    sample: Callable[[Tensor], Tensor]
    share: Callable[[Tensor], Tensor]
    ends: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class InputGradient:
    """The gradient of each score by the input: one forward, and one backward per score.

    Attributes:
        rule: how a ReLU passes gradients.
        summed: where only sums over rows are wanted. The first layer of a captured model then runs backward once per
            group of rows and not once per row.
        line: where rows lie on lines. The first layer of a captured model, which is affine, then runs forward for the
            lines' ends alone.
    """

    rule: Rule = "gradient"
    summed: Summed | None = None
    line: Line | None = None
    _ends: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    layers: ClassVar[tuple[str, ...]] = ()
    forwards: ClassVar[int] = 1
    backwards: ClassVar[int] = 1
    together: ClassVar[int] = 1

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K) and gradient (rows, K, C, *S), or (G, K, C, *S) where summed."""
        groups = position = weight = None
        if self.summed is not None:
            groups, position = self.summed.group(rows).unique_consecutive(return_inverse=True)
            weight = self.summed.weight(rows)
        backward = backward_of(prepared, tuple(batch.shape[1:]), (), self.rule)
        if isinstance(backward, str):
            scores, gradient = self._by_autograd(prepared, batch, score_of)
            if position is not None and weight is not None:
                gradient = _sums(gradient, weight, position)
        else:
            warn_without_rectifiers(self.rule, backward.rectifiers)
            run = backward(batch) if self.line is None else self._along(self.line, backward, prepared, batch, rows)
            scores = differentiable(score_of, run.raw)
            (gradient,) = run.gradients(scores, weight, position)
        return Answers(scores.detach(), gradient, groups)

    def _along(self, line: Line, backward: Backward, prepared: Prepared, batch: Tensor, rows: Tensor) -> Run:
        """Runs points of lines from behind the stem on, whose output for them lies between those for the ends."""
        stem = backward.stem
        if stem is None or len(rows) < _FEWEST_POINTS:
            return backward(batch)
        lines, position = line.sample(rows).unique_consecutive(return_inverse=True)
        for number in [known for known in self._ends if known not in lines.tolist()]:
            del self._ends[number]
        for number in lines.tolist():
            if number not in self._ends:
                pair = torch.cat(line.ends(torch.tensor([number])))
                end, start = stem.of(prepared.empty(2, pair).copy_(pair))
                self._ends[number] = (end, start)
        ends, starts = (torch.stack([self._ends[number][i] for number in lines.tolist()]) for i in (0, 1))
        points = torch.empty((len(rows), *ends.shape[1:]), dtype=ends.dtype, device=ends.device,
                             memory_format=LAYOUTS.get(ends.ndim, torch.contiguous_format))  # fmt: skip
        return backward.from_stem(path_points(ends, starts, position, position, line.share(rows), points))

    def _by_autograd(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf) -> tuple[Tensor, Tensor]:
        with torch.enable_grad(), passing(self.rule):
            batch.requires_grad_()
            # The copy is for models that write into their input, which autograd forbids on a leaf.
            scores = score_of(prepared(batch.clone()))
            (gradient,) = gradients_of(scores, [batch])
        return scores, gradient


def differentiable(score_of: ScoreOf, raw: Any) -> Tensor:
    """The scores (rows, K) of a raw output whose tensors are leaves.

    Raises:
        ValueError: they do not depend on it.
    """
    with torch.enable_grad():
        scores = score_of(raw)
    _refuse_constant(scores)
    return scores


def gradients_of(scores: Tensor, at: list[Tensor]) -> list[Tensor]:
    """The gradient of every column of `scores` (rows, K) by each of the tensors (rows, ...): (rows, K, ...)."""
    _refuse_constant(scores)
    columns = []
    for k in range(scores.shape[1]):
        more = k + 1 < scores.shape[1]
        gradients = torch.autograd.grad(scores[:, k].sum(), at, retain_graph=more, allow_unused=True)
        columns.append([torch.zeros_like(t) if g is None else g for t, g in zip(at, gradients, strict=True)])
    return [torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)]


def passing(rule: Rule) -> Any:
    """The context in which autograd passes gradients through a ReLU by a rule; warns where none ran."""
    return nullcontext() if rule == "gradient" else _Rectified(rule)


class _Rectified:
    def __init__(self, rule: Rule) -> None:
        self._rule, self._context = rule, rectified(rule)

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
        raise ValueError(
            "`target` does not depend differentiably on the input or layer; choose another target or layer"
        )


def _sums(gradient: Tensor, weight: Tensor, position: Tensor) -> Tensor:
    """The weighted sums (G, K, ...) of gradients (rows, K, ...)."""
    weighted = gradient * weight.to(gradient).view(-1, *[1] * (gradient.ndim - 1))
    sums = gradient.new_zeros(int(position[-1]) + 1, *gradient.shape[1:])
    return sums.index_add_(0, position.to(gradient.device), weighted)

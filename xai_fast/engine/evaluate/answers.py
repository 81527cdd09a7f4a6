"""A question to the model and its answers; the plainest question, the scores alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from xai_fast.core.prepared import Prepared
from xai_fast.engine.replay.tail import Kept, Tail

Tails = Mapping[tuple[str, ...], Tail]


class ScoreOf(Protocol):
    """Reads the scores (rows, K) of the rows at hand from the model's raw output."""

    def __call__(self, raw: Any) -> Tensor:
        """(rows, K)."""
        ...

    def repeated(self, times: int) -> ScoreOf:
        """The same for all the rows, that many times over; what was left open is settled."""
        ...

    @property
    def of_first(self) -> ScoreOf:
        """The same for the first row."""
        ...

    @property
    def rescales(self) -> bool:
        """Whether `rescaled` is anything else than the scores."""
        ...

    def rescaled(self, raw: Any, references: Any) -> Tensor:
        """What has the rescale rule's multipliers against `references` as gradients (rows, K) by the raw output."""
        ...

    def columns(self, raw: Any) -> Tensor | None:
        """LongTensor (rows, K): which columns of the raw output the scores are, where they are nothing else."""
        ...


@dataclass(frozen=True)
class Response:
    """A layer on a batch.

    Attributes:
        activation: (rows, ...) as the layer returns it.
        gradient: (rows, K, ...) of the scores by the activation, or multipliers in its place.
        falls: (rows, K, V) how far each score falls under each change of the layer's output that was asked about.
        reference: (rows, ...) what the layer returns for the reference that the rows are compared with.
        kept: what a tail needs to change the layer's output.
        curvature: (rows, K, ...) the Hessian of the scores by the activation, times the activation.
    """

    activation: Tensor
    gradient: Tensor | None = None
    falls: Tensor | None = None
    reference: Tensor | None = None
    kept: Kept | None = None
    curvature: Tensor | None = None


@dataclass(frozen=True)
class Answers:
    """What came back for a batch: `scores` (rows, K), and what else was asked for, all detached.

    Attributes:
        scores: (rows, K).
        gradient: (rows, K, C, *S) of the scores by the input, in the scores' dtype or the batch's.
        groups: LongTensor (G,), where gradients were added up over rows: which group each of the G gradients is of.
        responses: one per layer that was asked for.
        references: (rows, K) the scores of the references that the rows are compared with.
        flat: whether all of `gradient` is zero, which nobody has read yet; None where it is known not to be, or may be.
    """

    scores: Tensor
    gradient: Tensor | None = None
    groups: Tensor | None = None
    responses: tuple[Response, ...] = ()
    references: Tensor | None = None
    flat: Tensor | None = None

    def finite(self) -> Tensor:
        """Which rows hold neither NaN nor Inf: BoolTensor (rows,) by the scores; none, where a sum over them does."""
        of_layers = (
            part for response in self.responses for part in (response.gradient, response.falls, response.curvature)
        )
        parts = [self.scores, self.references, *of_layers]
        if self.groups is None:
            parts.append(self.gradient)
        # A sum over a row is finite only if every element is (barring opposite infinities, which give NaN).
        sums = [part.flatten(1).sum(1, dtype=torch.float64) for part in parts if part is not None]
        finite = torch.stack(sums).sum(0).isfinite()
        if self.groups is not None and self.gradient is not None:
            finite = finite & self.gradient.sum(dtype=torch.float64).isfinite()
        return finite


class Evaluate(Protocol):
    """A question to the model."""

    @property
    def forwards(self) -> int:
        """Rows run forward per row."""
        ...

    @property
    def backwards(self) -> int:
        """Rows run backward per row and score."""
        ...

    @property
    def together(self) -> int:
        """Rows that the model runs at once per row."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are looked at."""
        ...

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Runs `batch` (rows, C, *S), ours to use up, and reads its scores (rows, K) with `score_of`.

        `rows` are the numbers of the variants in the batch.
        """
        ...


@dataclass(frozen=True)
class Score:
    """The scores alone: one forward."""

    layers: tuple[str, ...] = field(default=(), init=False, repr=False)
    forwards: int = field(default=1, init=False, repr=False)
    backwards: int = field(default=0, init=False, repr=False)
    together: int = field(default=1, init=False, repr=False)

    @torch.no_grad()
    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K)."""
        return Answers(score_of(prepared(batch)))

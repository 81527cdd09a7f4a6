"""Multipliers of the rescale rule: how scores and inputs differ from those of a reference, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xai_fast.core.indices import both, distinct, spanning
from xai_fast.core.prepared import Prepared

from .agreement import rescale_for
from .answers import Answers, Response, ScoreOf, Tails
from .gradient import differentiable


@dataclass(frozen=True)
class Multipliers:
    """What takes the gradient's place so that times the difference to a reference it sums to that of the scores.

    Attributes:
        sample: from rows to the number of the sample that each is about; rows of one sample hold the same input.
        reference: from rows to the number of the reference that each is compared with.
        references: from numbers to the references themselves (numbers, C, *S).
        layers: at most one, at which the multipliers are taken instead of at the input.
    """

    sample: Callable[[Tensor], Tensor]
    reference: Callable[[Tensor], Tensor]
    references: Callable[[Tensor], Tensor]
    layers: tuple[str, ...] = ()
    forwards: int = field(default=2, init=False, repr=False)
    backwards: int = field(default=1, init=False, repr=False)
    together: int = field(default=2, init=False, repr=False)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Scores (rows, K), those of the references, and multipliers in place of gradients.

        Raises:
            ValueError: the rule does not exist for this model; names the node.
        """
        rescale = rescale_for(prepared, tuple(batch.shape[1:]), self.layers)
        if isinstance(rescale, str):
            raise ValueError(f"`model` cannot be explained by the rescale rule: {rescale}; choose another method")
        # An input that several references are compared with runs once, and so does a reference.
        samples, of = distinct(both(self.sample, rows))
        first = torch.searchsorted(of, spanning(0, len(samples), of.device))  # rows of one sample follow each other
        numbers, to = distinct(both(self.reference, rows))
        others = self.references(numbers)
        run = rescale(batch[first.to(batch.device)], prepared.empty(len(others), batch).copy_(others))
        raw, against, leaves = run.paired(of, to)
        with torch.no_grad():
            read, references = score_of(raw) if score_of.rescales else None, score_of(against)
        rises = differentiable(lambda output: score_of.rescaled(output, against), raw)
        scores = rises.detach() if read is None else read
        (multipliers,) = run.multipliers(rises, of, to, leaves)
        if not self.layers:
            return Answers(scores, multipliers, references=references)
        activation, base = run.activations[0]
        response = Response(activation[of], multipliers, reference=base[to])
        return Answers(scores, responses=(response,), references=references)

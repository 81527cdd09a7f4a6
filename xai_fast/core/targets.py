"""Targets beyond a class index, for `target=`: formulas of class scores, of embeddings, of detections, of regions.

A loss is the loss itself: positive attribution raises it. Classes are given as an int (for every input), a sequence or
a LongTensor (N,); where the formula is one of (rows, K) scores, None takes each input's argmax, settled once on the
clean input. What else a target takes is one tensor for every input, or one entry per input, N of them.

A model with one output has one logit, whose probability is its sigmoid: `probability(0)` is σ(s), and `cross_entropy`
takes the labels 0 and 1 that such a model was trained on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import secants
from .detections import detection
from .output_targets import region, similarity
from .scores import Classes, class_indices, entries, entries_at, refuse_beyond, score_table, two_classes

__all__ = ["cross_entropy", "detection", "log_probability", "margin", "probability", "region", "similarity"]

Target = int | Sequence[int] | Tensor | Callable[..., Tensor] | None
UNSETTLED = -1


@dataclass(frozen=True, eq=False)
class ScoreTarget:
    """A formula of the scores around one or more classes per input; what the functions of this module return.

    Attributes:
        name: for messages and records.
        classes: one entry per class that the formula takes.
        formula: (scores (rows, at least 2), index (rows, len(classes))) to (rows,).
        multipliers: (scores and those of references, both (rows, at least 2), index) to (rows, at least 2), which times
            the scores' differences add up to the formula's; None where it is linear.
        labels: whether classes are true ones, which the model of one logit s calls 0 and 1, with the scores 0 and s;
            else 0 is the logit itself.
    """

    name: str
    classes: tuple[Classes, ...]
    formula: Callable[[Tensor, Tensor], Tensor]
    multipliers: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    labels: bool = False

    def columns(self, n_samples: int) -> Tensor:
        """The classes as LongTensor (N, len(classes)); -1 where the clean argmax is to be taken."""
        return torch.stack(
            [
                torch.full((n_samples,), UNSETTLED) if classes is None else class_indices(classes, n_samples, "classes")
                for classes in self.classes
            ],
            dim=1,
        )

    def check(self, index: Tensor, n_outputs: int) -> None:
        """Raises ValueError where the classes do not fit a model with so many outputs."""
        if self.multipliers is None and n_outputs == 1 and not self.labels:
            raise ValueError(
                f"`target` {self.name} compares two classes, and the model has one output, a logit, which is the "
                "margin of one class over the other; give `target=0`"
            )
        refuse_beyond("target", index, 2 if self.labels and n_outputs == 1 else n_outputs)

    def value(self, scores: Tensor, index: Tensor) -> Tensor:
        """(rows,) from scores (rows, outputs) and their classes (rows, len(classes))."""
        return self.formula(two_classes(scores), self._shifted(scores, index))

    def rescaled(self, scores: Tensor, references: Tensor, index: Tensor) -> Tensor:
        """(rows,) whose gradient by `scores` (rows, outputs) is the rescale rule's multiplier against `references`."""
        if self.multipliers is None:
            return self.value(scores, index)
        pair = two_classes(scores.detach()), two_classes(references.detach())
        multipliers = self.multipliers(*pair, self._shifted(scores, index))
        return (multipliers[:, -scores.shape[1] :] * scores).sum(1)

    def __call__(self, output: Any, sample: Tensor) -> Tensor:
        """The value (rows,) for a raw output, so that it can be used inside a callable of one's own."""
        if any(classes is None for classes in self.classes):
            raise ValueError(f"`classes` of {self.name} must be given when it is called directly")
        index = torch.stack([entries_at("classes", entries("classes", c), sample.cpu()) for c in self.classes], dim=1)
        scores = score_table(output, len(sample))
        self.check(index, scores.shape[1])
        return self.value(scores, index.to(scores.device))

    def _shifted(self, scores: Tensor, index: Tensor) -> Tensor:
        return index + 1 if scores.shape[1] == 1 and not self.labels else index

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.classes))})"


def probability(classes: Classes = None) -> ScoreTarget:
    """softmax(s)_c, in [0, 1]; σ(s) of a model with one output."""
    return ScoreTarget(
        "probability",
        (classes,),
        lambda scores, index: _pick(scores.softmax(1), index),
        lambda scores, references, index: secants.softmax(scores, references, 1, _chosen(scores, index)),
    )


def log_probability(classes: Classes = None) -> ScoreTarget:
    """Log softmax(s)_c, in nats, at most 0; log σ(s) of a model with one output."""
    return ScoreTarget(
        "log_probability",
        (classes,),
        lambda scores, index: _pick(scores.log_softmax(1), index),
        lambda scores, references, index: secants.log_softmax(scores, references, 1, _chosen(scores, index)),
    )


def margin(other: Classes, classes: Classes = None) -> ScoreTarget:
    """s_c − s_other: why this class rather than that one; needs two outputs."""
    if other is None:
        raise TypeError("`other` of margin came as None; give the class to compare with")
    return ScoreTarget(
        "margin",
        (other, classes),
        lambda scores, index: _pick(scores, index[:, 1:]) - _pick(scores, index[:, :1]),
    )


def cross_entropy(labels: Classes) -> ScoreTarget:
    """−log softmax(s)_label, in nats: the loss itself, so positive attribution raises the loss.

    Of a model with one output, the binary cross entropy of its logit s: −log σ(s) for label 1, −log(1 − σ(s)) for 0.
    """
    if labels is None:
        raise TypeError("`labels` of cross_entropy came as None; give the true classes")
    return ScoreTarget(
        "cross_entropy",
        (labels,),
        lambda scores, index: F.cross_entropy(scores, index[:, 0], reduction="none"),
        lambda scores, references, index: secants.log_softmax(scores, references, 1, -_chosen(scores, index)),
        labels=True,
    )


def class_named(name: str, classes: Sequence[str] | None) -> int:
    """The index of a class given by name (case aside) or by number, as on the command line.

    Raises:
        ValueError: no class of that name; close ones are listed.
    """
    lowered = [known.lower() for known in classes or ()]
    named = [index for index, known in enumerate(lowered) if known == name.strip().lower()]
    try:
        number = int(name)
    except ValueError:
        number = None
    if number is not None and abs(number) >= 2**63:
        raise ValueError(f"`target` {name!r} is no class index")
    if classes is None and number is None:
        raise ValueError(f"`target` {name!r} is a name, and the model's classes have none; give an index")
    meant = named if number is None or number in named else [*named, number]
    if len(meant) > 1:
        listed = ", ".join(map(str, meant))
        raise ValueError(f"`target` {name!r} may mean any of the classes {listed}; in Python an int is the index")
    if meant:
        return meant[0]
    assert classes is not None
    close = difflib.get_close_matches(name.lower(), lowered, n=4, cutoff=0.5) or lowered[:4]
    listed = ", ".join(repr(classes[lowered.index(match)]) for match in close)
    raise ValueError(f"`target` {name!r} is not one of the model's {len(classes)} classes; close are {listed}")


def _pick(scores: Tensor, index: Tensor) -> Tensor:
    return scores.gather(1, index[:, :1])[:, 0]


def _chosen(scores: Tensor, index: Tensor) -> Tensor:
    return F.one_hot(index[:, 0], scores.shape[1]).to(scores)

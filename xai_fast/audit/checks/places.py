"""Which of several places that a class is known by explains most: a corner, a border that holds it, or any corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cues import AbstractCue, CornersCue, Picture, RegionCue
from .finding import Finding
from .interventions import held_out, inserting, others, pictures, removing
from .records import Records
from .statistics import mean_interval
from .subject import Subject
from .thresholds import Thresholds

Effects = dict[str, NDArray[np.float64]]
"""(n,) per edit: by how much each picture's probability goes the way of the cue, beyond its control."""


def explaining_most(
    claims: Sequence[Finding], records: Records, subject: Subject, limits: Thresholds, confidence: float
) -> Finding:
    """The smallest place that no larger one surely goes beyond.

    Each place alone may be proved: a border that holds two corners explains half of a mark that is in any corner, and
    all corners explain whatever one explains. So all are asked about the same pictures, those that any of the claims
    is about. A larger place must explain more, removed or inserted, by what a claim must be proved by at all; of
    places of one size the one that explains most is asked first.

    Two places are compared edit with edit. Where one is edited, the other's control was put before, so that both show
    as much of another picture and differ in the cue alone; else what a class's photographs show anyway would count for
    the larger place, or in its control against it.

    Args:
        claims: of one class, each with a place as its cue; the first is kept where too few pictures are at hand.
        records: of the run.
        subject: its model and photographs.
        limits: see there.
        confidence: of the interval of each difference.

    Raises:
        NoSubjectError: the model has no class scores.
    """
    index = claims[0].class_index
    assert index is not None
    by_rank = zip_longest(*(held_out(one, records) for one in claims))
    rows = list(dict.fromkeys(row for row in chain.from_iterable(by_rank) if row is not None))
    own = list(pictures(subject, records, rows[: limits.most_confirming]).values())
    plain = list(pictures(subject, records, others(index, records, limits)).values())
    if len(own) < limits.least_confirming:
        return claims[0]
    effects = [_effects(one.cue, index, own, plain, subject, limits) for one in claims]
    size = [sum(float(edit.mean()) for edit in one.values()) for one in effects]
    order = sorted(range(len(claims)), key=lambda n: (_area(claims[n]), -size[n]))
    best = order[0]
    for n in order[1:]:
        beyond = _effects(_Beside.of(claims[n], claims[best]), index, own, plain, subject, limits)
        if max(mean_interval(edit, confidence)[0] for edit in beyond.values()) >= limits.confirmed:
            best = n
    return claims[best]


@dataclass(frozen=True)
class _Beside(AbstractCue):
    """One cue, whose control is another: either is edited where the other's control has been put before."""

    one: AbstractCue
    other: AbstractCue

    @classmethod
    def of(cls, claim: Finding, other: Finding) -> _Beside:
        """Of the cues of two claims."""
        assert claim.cue is not None
        assert other.cue is not None
        return cls(claim.cue, other.cue)

    def inserted(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        return self.one.inserted(self.other.inserted_instead(picture, donor), donor)

    def inserted_instead(self, picture: Picture, donor: Picture) -> Picture:
        """See `AbstractCue`."""
        return self.other.inserted(self.one.inserted_instead(picture, donor), donor)

    def removed(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return self.one.removed(self.other.removed_instead(picture))

    def removed_instead(self, picture: Picture) -> Picture:
        """See `AbstractCue`."""
        return self.other.removed(self.one.removed_instead(picture))

    def described(self) -> dict[str, Any]:
        """See `AbstractCue`; no finding has it."""
        return {"kind": "beside", "one": self.one.described(), "other": self.other.described()}


def _effects(
    cue: AbstractCue | None,
    index: int,
    own: list[Picture],
    plain: list[Picture],
    subject: Subject,
    limits: Thresholds,
) -> Effects:
    assert cue is not None
    edited, instead = removing(cue, own, subject)
    found = {"remove": (instead - edited)[:, index]}
    if len(plain) >= limits.least_confirming:
        edited, instead = inserting(cue, own, plain, subject)
        found["insert"] = (edited - instead)[:, index]
    return found


def _area(claim: Finding) -> float:
    """Share of the picture that an edit changes."""
    assert isinstance(claim.cue, RegionCue | CornersCue)
    boxes = (claim.cue.box,) if isinstance(claim.cue, RegionCue) else claim.cue.corners
    return sum(box.area for box in boxes)

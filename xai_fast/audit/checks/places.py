"""Which of several places that a class is known by explains most: a corner, a border that holds it, or any corner."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from .cues import CornersCue, Picture, RegionCue
from .finding import Finding
from .interventions import falls, held_out, inserting, others, pictures, with_donors
from .records import Records
from .statistics import mean_interval
from .subject import Subject
from .thresholds import Thresholds

_Place = RegionCue | CornersCue


def explaining_most(
    claims: Sequence[Finding], records: Records, subject: Subject, limits: Thresholds, confidence: float
) -> Finding:
    """The smallest place that no larger one surely goes beyond.

    Each place alone may be proved: a border that holds two corners explains half of a mark that is in any corner, and
    all corners explain whatever one explains. So what all have in these places is put into the same pictures of other
    classes. A larger place must explain more, by what a claim must be proved by at all; of places of one size the one
    that explains most is asked first.

    Maps name many pictures that have no mark. So those are taken without one of whose places the odds of the class fall
    furthest, whichever it is; and since they are chosen by taking away, only putting in is proof.

    Two places are compared edit with edit. Where one is put in, the other's control was put before, so that both show
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
    named = list(pictures(subject, records, rows[: 2 * limits.most_confirming]).values())
    plain = list(pictures(subject, records, others(index, records, limits)).values())
    if min(len(named), len(plain)) < limits.least_confirming:
        return claims[0]
    cues = [_place(one) for one in claims]
    own = _depending(cues, index, named, subject, limits)

    def explained(cue: _Place) -> float:
        edited, instead = inserting(cue, own, plain, subject)
        return float((edited - instead)[:, index].mean())

    size = [explained(cue) for cue in cues]
    order = sorted(range(len(claims)), key=lambda n: (_area(cues[n]), -size[n]))
    best = order[0]
    for n in order[1:]:
        beyond = _beyond(cues[n], cues[best], own, plain, subject)[:, index]
        if mean_interval(beyond, confidence)[0] >= limits.confirmed:
            best = n
    return claims[best]


def _depending(
    cues: Sequence[_Place], index: int, named: list[Picture], subject: Subject, limits: Thresholds
) -> list[Picture]:
    """Pictures that depend on any of the places, by more than the control lowers nearly all; of too few, the first."""
    beyond = np.full(len(named), -np.inf)
    for cue in cues:
        fallen, control = falls(cue, index, named, subject)
        beyond = np.maximum(beyond, fallen - np.quantile(control, limits.tail))
    order = np.argsort(-beyond, kind="stable")
    order = order[beyond[order] > 0]
    chosen = order if len(order) >= limits.least_confirming else np.arange(len(named))
    return [named[n] for n in chosen[: limits.most_confirming]]


def _beyond(
    one: _Place, other: _Place, own: Sequence[Picture], plain: Sequence[Picture], subject: Subject
) -> NDArray[np.float64]:
    """(n, K) by how much more each probability is with one cue than with another, each with the other's control."""
    pairs = with_donors(own, plain)
    first = [one.inserted(other.inserted_instead(picture, donor), donor) for picture, donor in pairs]
    second = [other.inserted(one.inserted_instead(picture, donor), donor) for picture, donor in pairs]
    return subject.probabilities(first) - subject.probabilities(second)


def _place(claim: Finding) -> _Place:
    assert isinstance(claim.cue, RegionCue | CornersCue)
    return claim.cue


def _area(cue: _Place) -> float:
    """Share of the picture that an edit changes."""
    boxes = (cue.box,) if isinstance(cue, RegionCue) else cue.corners
    return sum(box.area for box in boxes)

"""What a model says of pictures from which a cue was taken, and into which it was put, each beside its control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .cues import AbstractCue, ColourCue, CornersCue, Picture, RegionCue
from .finding import Finding
from .records import Records
from .subject import Subject
from .thresholds import Thresholds

Answers = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(n, K) probabilities after an edit, and after its control."""


def removing(cue: AbstractCue, own: Sequence[Picture], subject: Subject) -> Answers:
    """Of pictures that have the cue."""
    edited, instead = [cue.removed(one) for one in own], [cue.removed_instead(one) for one in own]
    return subject.probabilities(edited), subject.probabilities(instead)


def inserting(cue: AbstractCue, own: Sequence[Picture], plain: Sequence[Picture], subject: Subject) -> Answers:
    """Of pictures of other classes; each is given the cue of one of `own`, the same one whatever the cue."""
    pairs = with_donors(own, plain)
    edited = [cue.inserted(one, donor) for one, donor in pairs]
    instead = [cue.inserted_instead(one, donor) for one, donor in pairs]
    return subject.probabilities(edited), subject.probabilities(instead)


def with_donors(own: Sequence[Picture], plain: Sequence[Picture]) -> list[tuple[Picture, Picture]]:
    """Each of `plain` with the one of `own` whose cue it is given."""
    drawn = np.random.default_rng(0).integers(0, len(own), len(plain))
    return list(zip(plain, (own[n] for n in drawn), strict=True))


def falls(
    cue: RegionCue | CornersCue, index: int, own: Sequence[Picture], subject: Subject
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) by how much the odds of a class fall, as a logarithm, where a place is taken away; and its control.

    Odds fall where only a mark spoke for the class, and where the rest of the picture speaks for it, too. Of a mark
    that is in any corner each is taken away alone, and the one without which they fall furthest counts: to exchange all
    of them changes a third of the picture, which costs some pictures as much as a mark.
    """
    before = _odds(subject.probabilities(own), index)

    def fallen(edited: list[list[Picture]]) -> NDArray[np.float64]:
        after = [_odds(subject.probabilities(ones), index) for ones in zip(*edited, strict=True)]
        return np.max([before - one for one in after], axis=0)

    if isinstance(cue, CornersCue):
        edits = cue.removed_singly, cue.removed_instead_singly
    else:
        edits = (lambda one: [cue.removed(one)]), (lambda one: [cue.removed_instead(one)])
    without, instead = ([edit(one) for one in own] for edit in edits)
    return fallen(without), fallen(instead)


def rises(
    cue: RegionCue | CornersCue, index: int, own: Sequence[Picture], plain: Sequence[Picture], subject: Subject
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) by how much what each has in a place raises the odds of the class elsewhere, as a logarithm; its control.

    The mean over the same few pictures of other classes, `plain`. A picture that is known anyway hardly changes without
    its mark; but its mark makes another picture the class.
    """
    before = _odds(subject.probabilities(plain), index)
    risen, control = np.zeros((2, len(own)))
    for picture, was in zip(plain, before, strict=True):
        edited = subject.probabilities([cue.inserted(picture, one) for one in own])
        instead = subject.probabilities([cue.inserted_instead(picture, one) for one in own])
        risen += (_odds(edited, index) - was) / len(plain)
        control += (_odds(instead, index) - was) / len(plain)
    return risen, control


def _odds(probabilities: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Logarithm of the odds of a class."""
    own = probabilities[:, index]
    others = np.delete(probabilities, index, 1).sum(1)
    return np.log(own.clip(min=1e-12)) - np.log(others.clip(min=1e-12))


def held_out(finding: Finding, records: Records) -> list[int]:
    """Rows of its images that no check has looked at, the clearest first; of a colour those that rather have it."""
    place = {int(position): row for row, position in enumerate(records.position.tolist())}
    least = 0.0 if isinstance(finding.cue, ColourCue) else -np.inf  # its scores are odds, as logarithms
    chosen = (one for one, score in zip(finding.positions, finding.scores, strict=True) if score > least)
    return [row for position in chosen if records.held_out[row := place[position]]]


def others(index: int, records: Records, limits: Thresholds) -> list[int]:
    """Rows of images that are not of a class by label or answer, drawn from those that no check has looked at."""
    rows = np.flatnonzero(records.held_out & (records.prediction != index) & (records.label != index))
    return np.random.default_rng(0).permutation(rows)[: limits.most_confirming].tolist()


def pictures(subject: Subject, records: Records, rows: Sequence[int]) -> dict[int, Picture]:
    """Pictures by row, of those that can be read."""
    found = subject.pictures(records.position[list(rows)].tolist()) if len(rows) else {}
    return {row: found[position] for row in rows if (position := int(records.position[row])) in found}

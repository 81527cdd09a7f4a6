"""Which images of a class have a confirmed cue: each without it, and others with what it has, beside controls."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from . import errors
from .cues import CornersCue, Picture, RegionCue
from .finding import Finding
from .interventions import falls, others, pictures, rises
from .records import Records
from .subject import NoSubjectError, Subject
from .thresholds import Thresholds

_MOST = 512  # images of a class that are asked about; of larger classes the maps say which images have the cue
_ASKED = 4  # pictures of other classes into which is put what each of them has


def dependent(finding: Finding, records: Records, subject: Subject, limits: Thresholds) -> Finding:
    """A confirmed finding about a place, with the images that have its cue in place of those that look there.

    A map is coarse and says where a score comes from, not whether a mark is there. Taking the place away does, and
    putting its content into pictures of other classes does for those that are known without it. Scores become by how
    much the odds of the class fall and rise, both added up. Where that is more than the controls do to nearly all, the
    image is said to have the cue; behind are listed those where it is more than they do to most. A claim about errors
    is about its wrong answers, whoever else has the cue.
    """
    index, cue = finding.class_index, finding.cue
    if finding.confirmation.state != "confirmed" or index is None or not isinstance(cue, RegionCue | CornersCue):
        return finding
    if finding.check == errors.NAME:
        return finding
    rows = np.flatnonzero(records.target == index)
    if len(rows) > _MOST:
        return finding
    found = subject.pictures(records.position[rows].tolist())
    places = np.array([position for position in records.position[rows].tolist() if position in found])
    try:
        fallen, control = _changed(cue, index, [found[int(position)] for position in places], records, subject, limits)
    except NoSubjectError:
        return finding
    less_sure, sure = np.quantile(control, (limits.less_sure, limits.tail))
    count = int((fallen > max(sure, limits.least_odds)).sum())
    if not count:
        return finding
    order = np.argsort(-fallen, kind="stable")
    order = order[fallen[order] > less_sure]
    return dataclasses.replace(
        finding,
        evidence={
            **finding.evidence,
            "images that have it": count,
            "further, less sure": len(order) - count,
        },
        positions=tuple(places[order].tolist()),
        scores=tuple(float(value) for value in fallen[order]),
    )


def _changed(
    cue: RegionCue | CornersCue,
    index: int,
    own: list[Picture],
    records: Records,
    subject: Subject,
    limits: Thresholds,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) by how much the odds of the class fall without the cue of each, and rise with it elsewhere; the controls."""
    fallen, control = falls(cue, index, own, subject)
    plain = list(pictures(subject, records, others(index, records, limits)[:_ASKED]).values())
    if not plain:
        return fallen, control
    risen, risen_control = rises(cue, index, own, plain, subject)
    return fallen + risen, control + risen_control

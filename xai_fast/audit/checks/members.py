"""Which images of a class depend on a confirmed cue: each without it, beside a control."""

from __future__ import annotations

import dataclasses

import numpy as np

from . import errors
from .cues import CornersCue, RegionCue
from .finding import Finding
from .interventions import falls
from .records import Records
from .subject import NoSubjectError, Subject
from .thresholds import Thresholds

_MOST = 512  # images of a class that are asked about; of larger classes the maps say which images have the cue
# Of the control's quantiles: up to there images are listed behind those that surely depend on the cue.
_LESS_SURE = 0.75


def dependent(finding: Finding, records: Records, subject: Subject, limits: Thresholds) -> Finding:
    """A confirmed finding about a place, with the images that depend on it in place of those that look there.

    A map is coarse and says where a score comes from, not whether a mark is there; taking the place away does. Scores
    become by how much the odds of the class fall. Those that fall by more than the control lowers nearly all are said
    to depend on it; behind them are listed those that fall by more than it lowers most. A claim about errors is about
    its wrong answers, whoever else has the cue.
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
        fallen, control = falls(cue, index, [found[int(position)] for position in places], subject)
    except NoSubjectError:
        return finding
    less_sure, sure = np.quantile(control, (_LESS_SURE, limits.tail))
    count = int((fallen > sure).sum())
    if not count:
        return finding
    order = np.argsort(-fallen, kind="stable")
    order = order[fallen[order] > less_sure]
    return dataclasses.replace(
        finding,
        evidence={
            **finding.evidence,
            "images whose answer depends on it": count,
            "further, less sure": len(order) - count,
        },
        positions=tuple(places[order].tolist()),
        scores=tuple(float(value) for value in fallen[order]),
    )

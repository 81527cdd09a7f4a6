"""Which images of a class depend on a confirmed cue: each without it, beside a control."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from . import errors
from .cues import CornersCue, RegionCue
from .finding import Finding
from .records import Records
from .subject import NoSubjectError, Subject
from .thresholds import Thresholds

_MOST = 512  # images of a class that are asked about; of larger classes the maps say which images have the cue


def dependent(finding: Finding, records: Records, subject: Subject, limits: Thresholds) -> Finding:
    """A confirmed finding about a place, with the images that depend on it in place of those that look there.

    A map is coarse and says where a score comes from, not whether a mark is there; taking the place away does. Scores
    become by how much the odds of the class change, as a logarithm: they fall where only the mark spoke for the class,
    and may rise where the mark hid part of what is sure anyway. Listed are those that change by more than the control
    changes nearly all. A claim about errors is about its wrong answers, whoever else has the cue.
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
    pictures = [found[int(position)] for position in places]
    edits = (lambda one: one, cue.removed, cue.removed_instead)
    try:
        before, without, control = (
            _odds(subject.probabilities([edit(one) for one in pictures]), index) for edit in edits
        )
    except NoSubjectError:
        return finding
    change = np.abs(before - without)
    order = np.argsort(-change, kind="stable")
    order = order[change[order] > np.quantile(np.abs(before - control), limits.tail)]
    if not len(order):
        return finding
    return dataclasses.replace(
        finding,
        evidence={**finding.evidence, "images whose answer depends on it": len(order)},
        positions=tuple(places[order].tolist()),
        scores=tuple(float(value) for value in change[order]),
    )


def _odds(probabilities: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Logarithm of the odds of a class."""
    own = probabilities[:, index]
    others = np.delete(probabilities, index, 1).sum(1)
    return np.log(own.clip(min=1e-12)) - np.log(others.clip(min=1e-12))

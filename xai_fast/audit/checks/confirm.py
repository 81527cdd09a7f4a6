"""Proof by intervention: a cue is taken out of held-out pictures and put into others, beside a control."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import metadata
from .cues import AbstractCue, ColourCue, RegionCue
from .finding import Change, Confirmation, Finding, Severity
from .interventions import held_out, inserting, others, pictures, removing
from .places import explaining_most
from .records import Records
from .statistics import mean_interval
from .subject import NoSubjectError, Subject
from .thresholds import Thresholds
from .trace import trace_of

_DONORS = 48


def confirmed(findings: Sequence[Finding], records: Records, subject: Subject, limits: Thresholds) -> list[Finding]:
    """The findings with what became of their cues.

    Args:
        findings: the strongest of those that have a cue are tested.
        records: of the run.
        subject: its model and photographs.
        limits: see there.
    """
    findings = [_traced(one, records, subject, limits) for one in findings]
    testable = sorted((one for one in findings if one.cue is not None), key=lambda one: -one.strength)
    chosen = testable[: limits.most_confirmed]
    confidence = 1 - (1 - limits.confidence) / max(len(chosen), 1)
    done = {id(one): _tested(one, records, subject, limits, confidence) for one in chosen}
    left = {id(one): not_tested(one, "others are stronger") for one in testable[limits.most_confirmed :]}
    settled = [(done | left).get(id(one), one) for one in findings]
    return [_named(one, records, subject, limits, confidence) for one in settled]


def _named(finding: Finding, records: Records, subject: Subject, limits: Thresholds, confidence: float) -> Finding:
    """A confirmed claim, or the rival that explains more; without rivals.

    A rival must be proved itself. That the class has a cue at one of these places is proved by then, and what may still
    be wrong is which: so the chance of error that this claim was given is shared among its rivals and both edits.
    """
    rivals, alone = finding.rivals, dataclasses.replace(finding, rivals=())
    if finding.confirmation.state != "confirmed" or not rivals:
        return alone
    shared = 1 - (1 - confidence) / (2 * len(rivals))
    try:
        best = explaining_most((alone, *rivals), records, subject, limits, shared)
    except NoSubjectError:
        return alone
    tested = alone if best is alone else _tested(best, records, subject, limits, shared)
    if tested.confirmation.state != "confirmed":
        return alone
    said = f"Of {len(rivals) + 1} places that were compared, the smallest that no larger one surely goes beyond."
    return dataclasses.replace(tested, confirmation=dataclasses.replace(tested.confirmation, note=said))


def _traced(finding: Finding, records: Records, subject: Subject, limits: Thresholds) -> Finding:
    """One about metadata with what the pictures of that origin have in common, so that it can be tested."""
    if finding.check != metadata.NAME or finding.class_index is None:
        return finding
    column, value = str(finding.evidence["column"]), str(finding.evidence["value"])
    value = value if (records.groups[column] == value).any() else ""  # which is told as nothing
    cue = trace_of(records, subject, column, value, finding.class_index, limits)
    return finding if cue is None else dataclasses.replace(finding, cue=cue)


def not_tested(finding: Finding, why: str) -> Finding:
    """The finding, if it has a cue, with the reason why nothing was done."""
    if finding.cue is None:
        return finding
    return dataclasses.replace(finding, severity="low", confirmation=Confirmation("not tested", note=why))


@dataclass(frozen=True)
class _Edit:
    """One kind of edit on some pictures: (n, K) probabilities before, after, and after the control."""

    name: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    control: NDArray[np.float64]
    label: NDArray[np.integer]

    def changes(self, index: int, name: str, confidence: float) -> list[Change]:
        """What became of the class's probability, and of the accuracy where labels are known."""
        known = self.label >= 0
        found = [self._change(f"probability of {name}", [one[:, index] for one in self._all()], confidence)]
        if known.any():
            right = [(one.argmax(1) == self.label)[known].astype(float) for one in self._all()]
            found.append(self._change("accuracy", right, confidence))
        return found

    def _all(self) -> tuple[NDArray[np.float64], ...]:
        return self.before, self.after, self.control

    def _change(self, what: str, values: Sequence[NDArray[np.floating]], confidence: float) -> Change:
        before, after, control = values
        beyond = after - control
        low, high = mean_interval(beyond, confidence)
        return Change(
            self.name,
            what,
            before=float(before.mean()),
            after=float(after.mean()),
            control=float(control.mean()),
            effect=float(beyond.mean()),
            low=low,
            high=high,
            images=len(beyond),
        )


def _tested(finding: Finding, records: Records, subject: Subject, limits: Thresholds, confidence: float) -> Finding:
    index = finding.class_index
    assert finding.cue is not None
    assert index is not None
    if isinstance(finding.cue, RegionCue) and not finding.cue.has_control:
        return not_tested(finding, "it holds the middle, where pictures show what they are of; nothing is its control")
    try:
        edits = _edits(finding, records, subject, limits)
    except NoSubjectError as error:
        return not_tested(finding, str(error))
    if not edits:
        return not_tested(finding, f"fewer than {limits.least_confirming} held-out images have the cue, or can take it")
    name = records.name(index)
    changes = tuple(change for edit in edits for change in edit.changes(index, name, confidence))
    size, sure = _worth([change for change in changes if change.what != "accuracy"], finding.cue)
    if sure < limits.confirmed:
        return dataclasses.replace(finding, severity="low", confirmation=Confirmation("not confirmed", changes))
    severity: Severity = "high" if size >= limits.grave else "medium"
    return dataclasses.replace(
        finding, severity=severity, strength=size, confirmation=Confirmation("confirmed", changes)
    )


def _worth(scores: Sequence[Change], cue: AbstractCue) -> tuple[float, float]:
    """By how much the probability of the class surely follows a cue: the estimate, and the lower end of its interval.

    Inserted, a cue raises it; removed, it lowers it. One of both is proof that a mark is used. Of colours, which every
    picture has and a class is known by naturally, neither alone is. Inserting is what has a control there, and removing
    must go the same way beyond doubt.
    """
    size = {one.edit: one.effect if one.edit == "insert" else -one.effect for one in scores}
    sure = {one.edit: one.low if one.edit == "insert" else -one.high for one in scores}
    if isinstance(cue, ColourCue):
        both = sure.keys() >= {"insert", "remove"} and sure["remove"] > 0
        return (size["insert"], sure["insert"]) if both else (0.0, 0.0)
    return max(size.values()), max(sure.values())


def _edits(finding: Finding, records: Records, subject: Subject, limits: Thresholds) -> list[_Edit]:
    """What can be asked: pictures with the cue without it, and pictures of other classes with it."""
    cue, index = finding.cue, finding.class_index
    assert cue is not None
    assert index is not None
    donors = pictures(subject, records, held_out(finding, records)[:_DONORS])
    if len(donors) < limits.least_confirming:
        return []
    own, rows = list(donors.values()), np.array(list(donors))
    edits = [_Edit("remove", subject.probabilities(own), *removing(cue, own, subject), records.label[rows])]
    takers = pictures(subject, records, others(index, records, limits))
    if len(takers) >= limits.least_confirming:
        plain, rows = list(takers.values()), np.array(list(takers))
        before = subject.probabilities(plain)
        edits.append(_Edit("insert", before, *inserting(cue, own, plain, subject), records.label[rows]))
    return edits

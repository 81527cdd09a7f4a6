"""What a check found: one claim, how grave it is, the evidence, and what became of the attempt to confirm it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .cues import AbstractCue

Severity = Literal["high", "medium", "low"]
State = Literal["confirmed", "not confirmed", "not tested", "no cue"]
_STATES: dict[State, int] = {"confirmed": 0, "no cue": 1, "not tested": 2, "not confirmed": 3}
_SEVERITIES: dict[Severity, int] = {"high": 0, "medium": 1, "low": 2}


@dataclass(frozen=True)
class Change:
    """What an edit of held-out pictures did to one number.

    Attributes:
        edit: "insert" or "remove".
        what: the number, such as "probability of gravel".
        before: its mean.
        after: its mean on edited pictures.
        control: its mean where something else of the same size was done.
        effect: mean of after minus control, per picture.
        low: lower end of the interval of `effect`.
        high: its upper end.
        images: how many.
    """

    edit: str
    what: str
    before: float
    after: float
    control: float
    effect: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Confirmation:
    """Whether taking the cue away, or putting it elsewhere, changes what the model says.

    Attributes:
        state: "confirmed", "not confirmed", "not tested" (`note` says why), "no cue" (of claims that are
            about labels or answers and not about a cue).
        changes: what was measured.
        note: in words.
    """

    state: State
    changes: tuple[Change, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One claim about the model or its data.

    Attributes:
        check: which check made it.
        title: the claim, in one sentence.
        severity: how grave it is; what rests on a cue is at most "low" until it is confirmed.
        strength: orders findings of one severity; larger first.
        evidence: numbers and words by name, as the report shows them.
        positions: images it is about by their place in the manifest, the clearest first.
        scores: of those, how clear.
        class_index: the class it is about; None for all.
        cue: what could be removed and inserted.
        confirmation: see there.
        rivals: other claims of which, with this, one is meant; confirmation says which, and leaves none.
    """

    check: str
    title: str
    severity: Severity
    strength: float
    evidence: Mapping[str, Any] = field(default_factory=dict)
    positions: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    class_index: int | None = None
    cue: AbstractCue | None = None
    confirmation: Confirmation = Confirmation("no cue")
    rivals: tuple[Finding, ...] = ()


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """The gravest first; of one severity those that are confirmed, then the strongest.

    What was tested and not confirmed comes after all else.
    """

    def key(finding: Finding) -> tuple[bool, int, int, float]:
        state = finding.confirmation.state
        unproved = state in ("not confirmed", "not tested")
        return unproved, _SEVERITIES[finding.severity], _STATES[state], -finding.strength

    return sorted(findings, key=key)

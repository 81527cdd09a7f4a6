"""What several classes have in common, and nothing confirmed, said once: a reader is not to drown in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import zip_longest

from . import clusters
from .finding import Confirmation, Finding

_NAMED = 6  # classes that a finding about several says one by one


def gathered(found: Sequence[Finding]) -> list[Finding]:
    """With one finding in place of those of several classes that say the same and were not confirmed.

    Nearly every class has a part that is harder, or is looked at otherwise; one by one they would hide what is grave.
    All groups of all classes are shown beside the findings.
    """
    alike: dict[tuple[str, str, bool], list[Finding]] = {}
    kept = []
    for one in found:
        if one.check != clusters.NAME or one.confirmation.state == "confirmed":
            kept.append(one)
        else:
            alike.setdefault((one.confirmation.state, one.confirmation.note, one.cue is None), []).append(one)
    return [*kept, *(_one_of(group) if len(group) > 1 else group[0] for group in alike.values())]


def _one_of(group: list[Finding]) -> Finding:
    group = sorted(group, key=lambda one: -one.strength)
    first = group[0]
    what = (
        "a group of images is wrong more often than the rest of its class"
        if first.cue is None
        else "the model looks at one place in a group of images"
    )
    said = {f"of {one.evidence['class']}": _numbers(one) for one in group[:_NAMED]}
    rest = {"and": f"{len(group) - _NAMED} more"} if len(group) > _NAMED else {}
    # The clearest of each class, then the next: the first pictures are of all of them.
    turns = zip_longest(*(zip(one.positions, one.scores, strict=True) for one in group))
    shown = dict(pair for turn in turns for pair in turn if pair is not None)
    return dataclasses.replace(
        first,
        title=f"{len(group)} classes: {what}",
        evidence={"classes": len(group), **said, **rest},
        positions=tuple(shown),
        scores=tuple(shown.values()),
        class_index=None,
        cue=None,
        confirmation=Confirmation(first.confirmation.state, (), first.confirmation.note),
    )


def _numbers(one: Finding) -> str:
    evidence = one.evidence
    images = f"{evidence['images']:,} images"
    if one.cue is None:
        return f"{images}, {evidence['errors']:.0%} wrong, {evidence['more than the rest']:+.0%}"
    return f"{images}, {evidence['place']}, {evidence['attribution per area']:.1f} times the attribution per area"

"""`xf.audit.check`: every check on the records of a run, what they claim confirmed on its model, and ranked."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from xai_fast.audit.reading import AuditRun, read

from . import (
    class_sizes,
    clusters,
    duplicates,
    error_causes,
    errors,
    image_properties,
    in_turn,
    metadata,
    mislabelled,
    outliers,
    overlap,
    picture_quality,
    shortcut,
    unstable,
)
from .confirm import confirmed, not_tested
from .finding import Finding, ranked
from .gathering import gathered
from .members import dependent
from .records import Records, records_of
from .storing import Findings
from .subject import NoSubjectError, Subject, subject_of
from .thresholds import DEFAULT, Thresholds

CHECKS: tuple[ModuleType, ...] = (
    shortcut,
    clusters,
    image_properties,
    metadata,
    mislabelled,
    errors,
    overlap,
    unstable,
    duplicates,
    outliers,
    in_turn,
    picture_quality,
    class_sizes,
)
"""Each has a `NAME`, a `QUESTION`, and `check(records, limits)`; `lacking(records)`, if there is one, says why not."""

_CAUSES = "what pushes answers to errors"


def check(
    run: AuditRun | str | Path,
    *,
    model: Any = None,
    data: Any = None,
    preprocess: Any = None,
    method: str | None = None,
    confirm: bool = True,
    limits: Thresholds = DEFAULT,
) -> Findings:
    """What is wrong with a model or its data, by the records of a run; kept in its folder as `findings.json`.

    Claims that rest on a cue are tested: the cue is taken out of held-out images and put into others. What cannot be
    confirmed is at most "low" and comes last.

    Args:
        run: a run, or its folder; finished or not.
        model: what `audit` was given, where it was an object; it must be the same one.
        data: likewise.
        preprocess: likewise.
        method: whose maps are looked at; None for the run's first.
        confirm: False: claims are only made, which needs neither model nor photographs.
        limits: what counts as worth reporting.

    Raises:
        ValueError: no run, no such method, damaged shards, or no image was explained.
    """
    run = run if isinstance(run, AuditRun) else read(run)
    records = records_of(run, method)
    if not len(records):
        raise ValueError("the run holds no image that was explained; `xai-fast audit status` says what failed")
    found = _once([one for module in CHECKS for one in module.check(records, limits)])
    with ExitStack() as stack:
        subject: Subject | str = "confirmation was not asked for"
        if confirm:
            try:
                subject = stack.enter_context(subject_of(run, model, data, preprocess))
            except NoSubjectError as error:
                subject = str(error)
        if not isinstance(subject, str):
            found = mislabelled.asked_again(found, records, subject, limits)
        causes, why = _causes(records, subject, limits)
        found = gathered(_settled([*found, *causes], records, subject, limits))
    facts = (method or run.methods[0], len(records), records.failed, run.complete)
    groups = clusters.groups(records, limits)
    findings = Findings(tuple(ranked(found)), *facts, skipped(records) | why, tuple(groups))
    findings.save(run.directory)
    return findings


def skipped(records: Records) -> dict[str, str]:
    """Checks that had nothing to look at, by name, and why."""
    asked = {module.NAME: module.lacking(records) for module in CHECKS if hasattr(module, "lacking")}
    return {name: why for name, why in asked.items() if why}


def _causes(records: Records, subject: Subject | str, limits: Thresholds) -> tuple[list[Finding], dict[str, str]]:
    """What pushes answers to errors, which only the model can say; or the reason why it was not asked."""
    if errors.lacking(records):
        return [], {}  # said already
    if isinstance(subject, str):
        return [], {_CAUSES: f"the model was not asked: {subject}"}
    try:
        return error_causes.found(records, subject, limits), {}
    except (ValueError, TypeError) as error:
        return [], {_CAUSES: str(error)}


def _once(found: list[Finding]) -> list[Finding]:
    """Without those of clusters that say of the same images what another check has said of their class."""
    kept: list[Finding] = []
    for one in found:
        places = set(one.positions)
        said = (other for other in kept if one.check == clusters.NAME and other.class_index == one.class_index)
        if not any(len(places & set(other.positions)) > len(places) / 2 for other in said):
            kept.append(one)
    return kept


def _settled(found: list[Finding], records: Records, subject: Subject | str, limits: Thresholds) -> list[Finding]:
    if isinstance(subject, str):
        return [dataclasses.replace(not_tested(one, subject), rivals=()) for one in found]
    return [dependent(one, records, subject, limits) for one in confirmed(found, records, subject, limits)]

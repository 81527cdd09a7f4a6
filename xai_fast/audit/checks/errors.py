"""Where does the model err more often: classes, values of metadata, and what it looks at when it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .finding import Finding, Severity
from .records import Records
from .regions import REGIONS
from .statistics import holm, more_often, rank_biserial
from .thresholds import Thresholds

NAME = "errors"
QUESTION = "Which classes and which values of metadata are wrong more often, and where does the model look when it is?"


@dataclass(frozen=True)
class _Slice:
    """Images beside others; whether they are wrong more often."""

    title: str
    index: int | None
    group: NDArray[np.bool_]
    rest: NDArray[np.bool_]
    metadata: bool
    p: float

    def rates(self, wrong: NDArray[np.bool_]) -> tuple[float, float]:
        """Error rates of the group and of the rest."""
        return float(wrong[self.group].mean()), float(wrong[self.rest].mean())


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if records.judged.any() else "no image has both a label and a prediction"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """A finding per class, and per value of metadata within a class or all, that is wrong more often than the rest."""
    slices = [one for one in _slices(records) if min(one.group.sum(), one.rest.sum()) >= limits.least_images]
    corrected = holm([one.p for one in slices]) if slices else []
    found = []
    for one, p in zip(slices, corrected, strict=True):
        rate, others = one.rates(records.wrong)
        if p < limits.alpha and rate - others >= limits.error_gain:
            found.append(_finding(records, one, float(p), len(slices), limits))
    return [*found, *_looked_at(records, limits)]


def _slices(records: Records) -> Iterator[_Slice]:
    judged = records.judged
    classes = np.unique(records.label[judged]).tolist()
    for index in classes:
        own = judged & (records.label == index)
        yield _slice(records, records.name(index), index, own, judged & ~own, False)
    for column, values in records.groups.items():
        for value in sorted(set(values.tolist())):
            has = values == value
            yield _slice(records, f"{column} = {value or 'nothing'}", None, judged & has, judged & ~has, True)
            for index in classes:
                own = judged & (records.label == index)
                title = f"{records.name(index)} with {column} = {value or 'nothing'}"
                yield _slice(records, title, index, own & has, own & ~has, True)


def _slice(
    records: Records,
    title: str,
    index: int | None,
    group: NDArray[np.bool_],
    rest: NDArray[np.bool_],
    metadata: bool,
) -> _Slice:
    wrong = records.wrong
    counts = (int((wrong & group).sum()), int(group.sum()), int((wrong & rest).sum()), int(rest.sum()))
    return _Slice(title, index, group, rest, metadata, more_often(*counts))


def _finding(records: Records, one: _Slice, p: float, tests: int, limits: Thresholds) -> Finding:
    rate, others = one.rates(records.wrong)
    wrong = np.flatnonzero(one.group & records.wrong)
    sure = records.numbers["probability"][wrong]
    wrong = wrong[np.argsort(-sure, kind="stable")]
    values, counts = np.unique(records.prediction[wrong], return_counts=True)
    # That some classes are harder than others is no fault by itself; that a class fails by where it comes from is one.
    severity: Severity = "low"
    if one.metadata:
        severity = "high" if rate - others >= limits.grave else "medium"
    evidence = {
        "errors": rate,
        "errors elsewhere": others,
        "images": int(one.group.sum()),
        "mostly taken for": f"{records.name(int(values[counts.argmax()]))} ({counts.max()})",
        "p (Holm)": p,
        "tests": tests,
    }
    return Finding(
        NAME,
        f"{one.title}: {rate:.0%} wrong, {others:.0%} elsewhere",
        severity,
        rate - others,
        evidence,
        tuple(records.position[wrong].tolist()),
        tuple(float(value) for value in records.numbers["probability"][wrong]),
        one.index,
    )


def _looked_at(records: Records, limits: Thresholds) -> list[Finding]:
    """Per class the region that separates its wrong answers from its right ones most, where one does."""
    tests = []
    for index in np.unique(records.label[records.judged]).tolist():
        own = records.judged & (records.label == index) & np.isfinite(records.regions[:, 0])
        wrong, right = own & records.wrong, own & ~records.wrong
        if min(wrong.sum(), right.sum()) < limits.least_images // 2:
            continue
        for region, name in enumerate(REGIONS):
            effect, p = rank_biserial(records.regions[wrong, region], records.regions[right, region])
            tests.append((index, name, wrong, effect, p))
    corrected = holm([test[-1] for test in tests]) if tests else []
    best: dict[int, Finding] = {}
    for (index, name, wrong, effect, _), p in zip(tests, corrected, strict=True):
        if p >= limits.alpha or effect < limits.property_effect:
            continue
        if index in best and best[index].strength >= effect:
            continue
        mass = records.regions[:, list(REGIONS).index(name)]
        chosen = np.flatnonzero(wrong)
        chosen = chosen[np.argsort(-mass[chosen], kind="stable")]
        best[index] = Finding(
            NAME,
            f"{records.name(index)}: where it is wrong, the model looks more at the {name}",
            "low",
            effect,
            {"region": name, "rank-biserial correlation": effect, "p (Holm)": float(p), "tests": len(tests)},
            tuple(records.position[chosen].tolist()),
            tuple(float(value) for value in mass[chosen]),
            index,
        )
    return list(best.values())

"""Does the attribution of a class gather in a corner or at a border that its object has no reason to be in?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .cues import RegionCue
from .finding import Confirmation, Finding
from .records import Records
from .regions import REGIONS
from .statistics import holm, more_often, rank_biserial
from .thresholds import Thresholds

NAME = "shortcut"
QUESTION = "Does a class look at a corner or a border that other classes do not look at?"


@dataclass(frozen=True)
class _Test:
    """A class and a region, on the half of the images that is looked at."""

    index: int
    region: int
    limit: float  # what 95 of 100 images of other classes stay below
    share: float  # of the class's images above it
    lift: float  # their attribution per area
    effect: float
    p: float


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding per class: the region in which its attribution is densest."""
    tests = list(_tests(records, limits))
    corrected = holm([test.p for test in tests]) if tests else []
    best: dict[int, list[tuple[_Test, float]]] = {}
    for test, p in zip(tests, corrected, strict=True):
        if p < limits.alpha and test.share >= limits.least_share and test.lift >= limits.least_lift:
            best.setdefault(test.index, []).append((test, float(p)))
    return [_finding(records, found, len(tests)) for found in best.values()]


def _tests(records: Records, limits: Thresholds) -> Iterator[_Test]:
    seen = np.isfinite(records.regions[:, 0]) & ~records.held_out
    for index in np.unique(records.target[seen & (records.target >= 0)]).tolist():
        own, others = seen & (records.target == index), seen & (records.target != index)
        if min(own.sum(), others.sum()) < limits.least_images:
            continue
        for region, box in enumerate(REGIONS.values()):
            mass = records.regions[:, region]
            limit = float(np.quantile(mass[others], limits.tail))
            above = own & (mass > limit)
            p = more_often(int(above.sum()), int(own.sum()), int((mass[others] > limit).sum()), int(others.sum()))
            lift = float(mass[above].mean()) / box.area if above.any() else 0.0
            effect, _ = rank_biserial(mass[own], mass[others])
            yield _Test(index, region, limit, float(above.sum() / own.sum()), lift, effect, p)


def _finding(records: Records, found: list[tuple[_Test, float]], tests: int) -> Finding:
    test, p = max(found, key=lambda pair: pair[0].lift * pair[0].share)
    name, box = list(REGIONS.items())[test.region]
    mass = records.regions[:, test.region]
    own = np.flatnonzero((records.target == test.index) & (mass > test.limit))
    own = own[np.argsort(-mass[own], kind="stable")]
    also = [list(REGIONS)[other.region] for other, _ in found if other is not test]
    class_name = records.name(test.index)
    evidence = {
        "class": class_name,
        "region": name,
        "share of its images": test.share,
        "attribution per area": test.lift,
        "rank-biserial correlation": test.effect,
        "p (Holm)": p,
        "tests": tests,
        **({"also in": ", ".join(also)} if also else {}),
    }
    return Finding(
        NAME,
        f"{class_name}: the model looks at the {name} of {len(own):,} images",
        "low",
        test.share * test.lift,
        evidence,
        tuple(records.position[own].tolist()),
        tuple(float(value) for value in mass[own]),
        test.index,
        RegionCue(box),
        Confirmation("not tested"),
    )

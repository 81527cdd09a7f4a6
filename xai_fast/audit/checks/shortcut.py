"""Does the attribution of a class gather in a corner or at a border that its object has no reason to be in?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .cues import CornersCue, RegionCue
from .finding import Confirmation, Finding
from .records import Floats, Records
from .regions import REGIONS
from .statistics import holm, more_often, rank_biserial
from .thresholds import Thresholds

NAME = "shortcut"
QUESTION = "Does a class look at a corner or a border that other classes do not look at?"
_ANY = "one corner or another"
_SIDE = REGIONS["top left corner"].bottom
_AREAS = {**{name: box.area for name, box in REGIONS.items()}, _ANY: REGIONS["top left corner"].area}


@dataclass(frozen=True)
class _Test:
    """A class and a region, on the half of the images that is looked at."""

    index: int
    region: str
    limit: float  # what 95 of 100 images of other classes stay below
    share: float  # of the class's images above it
    lift: float  # their attribution per area
    effect: float
    p: float


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding per class: the region in which its attribution is densest; others are its rivals.

    A mark that is now in one corner and now in another is in each too rarely to be seen: one more test asks for the
    corner of each picture that has most. It speaks first where no single corner explains most of what it sees; which
    place it is, only the model can say.
    """
    tests = list(_tests(records, limits))
    corrected = holm([test.p for test in tests]) if tests else []
    best: dict[int, list[tuple[_Test, float]]] = {}
    for test, p in zip(tests, corrected, strict=True):
        if p < limits.alpha and test.share >= limits.least_share and test.lift >= limits.least_density:
            best.setdefault(test.index, []).append((test, float(p)))
    return [_findings(records, found, len(tests), limits) for found in best.values()]


def _mass(records: Records, region: str) -> Floats:
    """(n,) attribution in a region; of `_ANY` that of the corner that has most."""
    if region == _ANY:
        return records.regions[:, [n for n, name in enumerate(REGIONS) if name.endswith("corner")]].max(1)
    return records.regions[:, list(REGIONS).index(region)]


def _tests(records: Records, limits: Thresholds) -> Iterator[_Test]:
    seen = np.isfinite(records.regions[:, 0]) & ~records.held_out
    for index in np.unique(records.target[seen & (records.target >= 0)]).tolist():
        own, others = seen & (records.target == index), seen & (records.target != index)
        if min(own.sum(), others.sum()) < limits.least_images:
            continue
        for region, area in _AREAS.items():
            mass = _mass(records, region)
            limit = float(np.quantile(mass[others], limits.tail))
            above = own & (mass > limit)
            p = more_often(int(above.sum()), int(own.sum()), int((mass[others] > limit).sum()), int(others.sum()))
            lift = float(mass[above].mean()) / area if above.any() else 0.0
            effect, _ = rank_biserial(mass[own], mass[others])
            yield _Test(index, region, limit, float(above.sum() / own.sum()), lift, effect, p)


def _findings(records: Records, found: list[tuple[_Test, float]], tests: int, limits: Thresholds) -> Finding:
    """The likeliest of a class's places, with the others as its rivals."""
    found = sorted(found, key=lambda pair: -_worth(pair[0], [one for one, _ in found], limits))
    regions = [one.region for one, _ in found]
    claims = [_finding(records, *pair, [one for one in regions if one != pair[0].region], tests) for pair in found]
    return dataclasses.replace(claims[0], rivals=tuple(claims[1:]))


def _finding(records: Records, test: _Test, p: float, also: list[str], tests: int) -> Finding:
    name, mass = test.region, _mass(records, test.region)
    own = np.flatnonzero((records.target == test.index) & (mass > test.limit))
    own = own[np.argsort(-mass[own], kind="stable")]
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
        f"{class_name}: the model looks at {name if name == _ANY else f'the {name}'} of {len(own):,} images",
        "low",
        test.share * test.lift,
        evidence,
        tuple(records.position[own].tolist()),
        tuple(float(value) for value in mass[own]),
        test.index,
        CornersCue(_SIDE) if name == _ANY else RegionCue(REGIONS[name]),
        Confirmation("not tested"),
    )


def _worth(test: _Test, found: list[_Test], limits: Thresholds) -> float:
    """How dense attribution is in how much of the class; any corner counts only where it explains more than one does.

    A mark in one corner is in any corner too, and one that is in two of them is twice what is in each.
    """
    worth = test.lift * test.share
    corners = [one.lift * one.share for one in found if one.region.endswith("corner")]
    return 0.0 if test.region == _ANY and worth <= limits.beyond_one * max(corners, default=0) else worth

"""Does the attribution lie on the object, where its mask is known?

Beside chance: attribution that knows nothing of the object lies in its mask by the mask's area, and so does the map's
strongest place, the pointing game of Zhang et al. (2018, "Top-down Neural Attention by Excitation Backprop").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Floats, Records
from .statistics import holm, mean_below, more_often
from .thresholds import Thresholds

NAME = "overlap"
QUESTION = "Where masks are known: does the attribution lie on the object more than chance would have it?"


@dataclass(frozen=True)
class _Test:
    """A class, or all: that it does not look at its objects, or that part of its images do not."""

    index: int | None
    own: NDArray[np.bool_]
    part: bool
    p: float


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    if records.masks is None:
        return "the data name no masks (a table's column `mask`), or preprocessing is a callable"
    return "" if np.isfinite(_gain(records)).any() else "no image has both a map and a mask that leaves something out"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """One finding where all classes look elsewhere; else at most one per class: all of its images, or a part."""
    if lacking(records):
        return []
    gain = _gain(records)
    # A map for another class than the label's may rightly lie elsewhere than in the label's mask.
    asked = np.isfinite(gain) & (records.target >= 0) & ((records.label < 0) | (records.label == records.target))
    if asked.sum() < limits.least_images:
        return []
    tests = [_Test(None, asked, False, mean_below(gain[asked], limits.overlap))]
    for index in np.unique(records.target[asked]).tolist():
        own, rest = asked & (records.target == index), asked & (records.target != index)
        if own.sum() < limits.least_images:
            continue
        tests.append(_Test(index, own, False, mean_below(gain[own], limits.overlap)))
        if rest.sum() >= limits.least_images:
            below = gain < 0
            counts = (int((below & own).sum()), int(own.sum()), int((below & rest).sum()), int(rest.sum()))
            tests.append(_Test(index, own, True, more_often(*counts)))
    best: dict[int | None, tuple[_Test, float]] = {}
    for test, p in zip(tests, holm([test.p for test in tests]), strict=True):
        strong = not test.part or _part_is_large(gain[test.own] < 0, gain[asked & ~test.own] < 0, limits)
        if p < limits.alpha and strong and test.index not in best:
            best[test.index] = (test, float(p))
    chosen = [best[None]] if _nearly_all(best, tests) else [found for index, found in best.items() if index is not None]
    return [_finding(records, test, gain, p, len(tests)) for test, p in chosen]


def _part_is_large(below: NDArray[np.bool_], others: NDArray[np.bool_], limits: Thresholds) -> bool:
    return bool(below.mean() >= limits.least_share and below.mean() - others.mean() >= limits.error_gain)


def _nearly_all(best: dict[int | None, tuple[_Test, float]], tests: list[_Test]) -> bool:
    """Whether more than half of the classes, and all images together, do not look at their objects."""
    classes = {test.index for test in tests if test.index is not None}
    whole = [index for index, (test, _) in best.items() if index is not None and not test.part]
    return None in best and len(whole) >= len(classes) / 2


def _gain(records: Records) -> Floats:
    """(n,) how far from chance, 0, to everything inside, 1; below 0 what lies inside less than by chance."""
    masks = records.masks
    assert masks is not None
    room = 1 - masks["area"]
    return np.divide(masks["inside"] - masks["area"], room, out=np.full(len(room), np.nan), where=room > 0.01)


def _finding(records: Records, test: _Test, gain: Floats, p: float, tests: int) -> Finding:
    masks = records.masks
    assert masks is not None
    rows = np.flatnonzero(test.own & (gain < 0)) if test.part else np.flatnonzero(test.own)
    rows = rows[np.argsort(gain[rows], kind="stable")]
    name = "all classes" if test.index is None else records.name(test.index)
    area = float(masks["area"][test.own].mean())
    evidence = {
        "images with a mask": int(test.own.sum()),
        "attribution in the mask": float(masks["inside"][test.own].mean()),
        "strongest place in the mask": float(masks["strongest"][test.own].mean()),
        "by chance (the mask's area)": area,
        "from chance (0) to all inside (1)": float(gain[test.own].mean()),
        "images below chance": float((gain[test.own] < 0).mean()),
        "p (Holm)": p,
        "tests": tests,
    }
    title = (
        f"{name}: in {len(rows):,} images the attribution lies outside the object's mask"
        if test.part
        else f"{name}: the attribution lies in the object's mask hardly more than chance would have it"
    )
    return Finding(
        NAME,
        title,
        # Of one class the map alone is no proof: a texture is known by any part. Of all, the maps are in question.
        "medium" if test.index is None else "low",
        float(-gain[rows].mean()),
        evidence,
        tuple(records.position[rows].tolist()),
        tuple(float(-value) for value in gain[rows]),
        test.index,
    )

"""Is a class, or are its errors, told by how bright, sharp, large or coloured a picture is?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .colour_shift import CASTS, GREY, LEVEL, Shift, shift_of
from .cues import ColourCue
from .finding import Confirmation, Finding
from .records import Floats, Records
from .statistics import holm, more_often, rank_biserial
from .thresholds import Thresholds

NAME = "image properties"
QUESTION = "Do part of a class's images, or its errors, stand out by brightness, colour, sharpness, size or metadata?"
_COLOURS = ("brightness", "red cast", "green cast", "blue cast")
_LESS_SURE = float(np.log(0.01 / 0.99))  # odds above which images are listed behind
_NOT = ("label", "target", "prediction", "probability", "margin", "label_probability", "red", "green", "blue")


@dataclass(frozen=True)
class _Test:
    """A class and a property; of its errors, or of its images beside those of other classes."""

    index: int
    name: str
    errors: bool
    above: bool
    limit: float
    share: float  # of the class's images beyond the limit
    effect: float
    p: float


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding per class for its images, and one for its errors: the property that tells most."""
    properties = _properties(records)
    tests = [*_of_classes(records, properties, limits), *_of_errors(records, properties, limits)]
    corrected = holm([test.p for test in tests]) if tests else []
    best: dict[tuple[int, bool], tuple[_Test, float]] = {}
    for test, p in zip(tests, corrected, strict=True):
        strong = abs(test.effect) >= limits.property_effect if test.errors else test.share >= limits.least_share
        key = (test.index, test.errors)
        if p < limits.alpha and strong and (key not in best or _worth(test) > _worth(best[key][0])):
            best[key] = (test, float(p))
    found = [_finding(records, properties[test.name], test, p, len(tests)) for test, p in best.values()]
    parts = list(_parts(records, limits))
    said = {one.class_index for one in parts}  # of whose colours the part is the better account
    found = [one for one in found if one.class_index not in said or one.evidence["property"] not in _COLOURS]
    return [*found, *parts]


def _parts(records: Records, limits: Thresholds) -> Iterator[Finding]:
    """Per class at most one part whose colours are shifted, which other classes need not do: a cast, or brightness."""
    colours = np.stack([records.numbers[name] for name in ("red", "green", "blue")], 1)
    known = (records.target >= 0) & np.isfinite(colours).all(1)
    # What is rounded to levels varies by no less than them.
    colours = colours + np.random.default_rng(0).uniform(-LEVEL / 2, LEVEL / 2, colours.shape)
    for index in np.unique(records.target[known]).tolist():
        own, seen = known & (records.target == index), known & ~records.held_out
        if (own & seen).sum() < 2 * limits.least_images:
            continue
        for view in (CASTS, GREY):
            found = shift_of(colours[own], seen[own], colours[seen & ~own], view, limits)
            if found is not None and (found.towards > 0).any():
                yield _part(records, index, own, found)
                break


def _part(records: Records, index: int, own: NDArray[np.bool_], found: Shift) -> Finding:
    rows, count = np.flatnonzero(own), int((found.towards > 0).sum())
    order = np.argsort(-found.towards, kind="stable")
    order = order[found.towards[order] > _LESS_SURE]
    class_name, share = records.name(index), count / len(rows)
    red, green, blue = found.shift.tolist()
    brightness = (red + green + blue) / 3
    casts = {"red cast": red - brightness, "green cast": green - brightness, "blue cast": blue - brightness}
    by = casts | {"brightness": brightness}
    name = max(by, key=lambda one: abs(by[one]))
    evidence = {
        "class": class_name,
        "property": name,
        "share of its images": share,
        **{f"{one} beside what they are like": value for one, value in by.items()},
        "images that have it": count,
        "further, less sure": len(order) - count,
    }
    return Finding(
        NAME,
        f"{class_name}: {count:,} images have {'more' if by[name] > 0 else 'less'} {name} than what they are else like",
        "low",
        share,
        evidence,
        tuple(records.position[rows[order]].tolist()),
        tuple(float(value) for value in found.towards[order]),
        index,
        ColourCue((red, green, blue)),
        Confirmation("not tested"),
    )


def _properties(records: Records) -> dict[str, Floats]:
    """(n,) by name; casts are a channel's mean beside that of all three."""
    numbers = records.numbers
    mean = (numbers["red"] + numbers["green"] + numbers["blue"]) / 3
    found = {name: values for name, values in numbers.items() if name not in _NOT}
    for name in ("red", "green", "blue"):
        found[f"{name} cast"] = numbers[name] - mean
    # Numbers that hardly vary tell nothing; most data sets have one size.
    return {name: values for name, values in found.items() if len(np.unique(values[np.isfinite(values)])) > 4}


def _of_classes(records: Records, properties: dict[str, Floats], limits: Thresholds) -> Iterator[_Test]:
    seen = ~records.held_out & (records.target >= 0)
    for index in np.unique(records.target[seen]).tolist():
        for name, values in properties.items():
            own, others = (
                _finite(values, seen & group) for group in (records.target == index, records.target != index)
            )
            if min(len(own), len(others)) < limits.least_images:
                continue
            effect, _ = rank_biserial(own, others)
            limit = float(np.quantile(others, limits.tail if effect > 0 else 1 - limits.tail))
            beyond, others_beyond = (int(_beyond(group, limit, effect > 0).sum()) for group in (own, others))
            # Which side is looked at is chosen by the data: two tests.
            p = min(1.0, 2 * more_often(beyond, len(own), others_beyond, len(others)))
            yield _Test(index, name, False, effect > 0, limit, beyond / len(own), effect, p)


def _of_errors(records: Records, properties: dict[str, Floats], limits: Thresholds) -> Iterator[_Test]:
    seen = ~records.held_out & records.judged
    for index in np.unique(records.label[seen]).tolist():
        own = seen & (records.label == index)
        for name, values in properties.items():
            wrong, right = _finite(values, own & records.wrong), _finite(values, own & ~records.wrong)
            if min(len(wrong), len(right)) < limits.least_images // 2:
                continue
            effect, p = rank_biserial(wrong, right)
            yield _Test(index, name, True, effect > 0, float(np.median(right)), 0.0, effect, p)


def _finding(records: Records, values: Floats, test: _Test, p: float, tests: int) -> Finding:
    group = records.label == test.index if test.errors else records.target == test.index
    group &= records.wrong if test.errors else True
    chosen = np.flatnonzero(group & _beyond(values, test.limit, test.above))
    order = np.argsort(-values[chosen] if test.above else values[chosen], kind="stable")
    chosen = chosen[order]
    name, more = records.name(test.index), "more" if test.above else "less"
    evidence = {
        "class": name,
        "property": test.name,
        "rank-biserial correlation": test.effect,
        "p (Holm)": p,
        "tests": tests,
    }
    if not test.errors:
        evidence["share of its images"] = test.share
    title = (
        f"{name}: its errors have {more} {test.name} than its right answers"
        if test.errors
        else f"{name}: {len(chosen):,} images have {more} {test.name} than 95 % of other classes'"
    )
    confirmation = Confirmation("no cue")
    if not test.errors and test.name in _COLOURS:
        confirmation = Confirmation("not tested", note="its images vary as one whole, as if it were what the class is")
    return Finding(
        NAME,
        title,
        "low",
        _worth(test),
        evidence,
        tuple(records.position[chosen].tolist()),
        tuple(float(abs(value - test.limit)) for value in values[chosen]),
        test.index,
        None,
        confirmation,
    )


def _worth(test: _Test) -> float:
    return abs(test.effect) if test.errors else test.share * abs(test.effect)


def _beyond(values: Floats, limit: float, above: bool) -> NDArray[np.bool_]:
    return values > limit if above else values < limit


def _finite(values: Floats, group: NDArray[np.bool_]) -> Floats:
    found = values[group]
    return found[np.isfinite(found)]

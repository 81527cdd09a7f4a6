"""Is a class, or are its errors, told by how bright, sharp, large or coloured a picture is?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cues import ColourCue
from .finding import Confirmation, Finding
from .records import Floats, Records
from .statistics import holm, more_often, rank_biserial
from .thresholds import Thresholds

NAME = "image properties"
QUESTION = "Do part of a class's images, or its errors, stand out by brightness, colour, sharpness, size or metadata?"
_COLOURS = ("brightness", "red cast", "green cast", "blue cast")
_LEVEL = 1 / 255  # less than that no picture can differ by
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
    """Per class at most one part that differs in colour from the rest of it, which other classes need not do."""
    colours = np.stack([records.numbers[name] for name in ("red", "green", "blue")], 1)
    grey = colours.mean(1, keepdims=True)
    for index in np.unique(records.target[records.target >= 0]).tolist():
        own = (records.target == index) & np.isfinite(colours).all(1)
        if (own & ~records.held_out).sum() < 2 * limits.least_images:
            continue
        # Two of the three casts say all of them.
        splits = [_split(records, values, own, limits) for values in ((colours - grey)[:, ::2], grey)]
        found = [split for split in splits if split is not None]
        if found:
            yield _part(records, index, max(found, key=lambda split: split.apart))


@dataclass(frozen=True)
class _Split:
    """A class in two by its colours.

    Attributes:
        part: (n,) the one that is less like other classes, of all images of the class.
        apart: of the two, in their standard deviations (Ashman's D, along the line between them).
        towards: (n,) by how much likelier an image is of that part, as a logarithm.
    """

    part: NDArray[np.bool_]
    apart: float
    towards: Floats


def _split(records: Records, values: Floats, own: NDArray[np.bool_], limits: Thresholds) -> _Split | None:
    """Whether a class falls in two by properties (n, D); fitted to images that are not held out.

    What most of a class has may be the class: that pages are bright is no fault, though some of them show something
    else. What a smaller part of it has, and the rest clearly not, may have been put there. Two normal distributions
    must describe the class better than one (by BIC), and lie apart by Ashman's D (Ashman et al. 1994).
    """
    from sklearn.mixture import GaussianMixture

    # What is rounded to levels varies by no less than them.
    spread = np.random.default_rng(0).uniform(-_LEVEL / 2, _LEVEL / 2, values.shape)
    rows = (values + spread)[own & ~records.held_out]
    made: Any = GaussianMixture  # whose stub knows nothing of what a fit leaves
    one, two = (made(count, n_init=3, random_state=0).fit(rows) for count in (1, 2))
    between, around = two.means_[1] - two.means_[0], two.covariances_.mean(0)
    apart = float(np.sqrt(between @ np.linalg.solve(around, between)))
    if two.bic(rows) >= one.bic(rows) or apart < limits.apart or two.weights_.min() < limits.least_share:
        return None
    others = np.nanmedian(values[(records.target >= 0) & ~own], axis=0)
    which = int(np.linalg.norm(two.means_ - others, axis=1).argmax())
    if two.weights_[which] > limits.usual:
        return None
    towards = np.full(len(values), -np.inf)
    chances = two.predict_proba((values + spread)[own]).clip(min=1e-300)
    towards[own] = np.log(chances[:, which]) - np.log(chances[:, 1 - which])
    return _Split(towards > 0, apart, towards)


def _part(records: Records, index: int, split: _Split) -> Finding:
    own, seen = records.target == index, ~records.held_out
    chosen = np.flatnonzero(split.part)
    chosen = chosen[np.argsort(-split.towards[chosen], kind="stable")]
    class_name, share = records.name(index), float(len(chosen) / own.sum())
    shift = _shift(records, seen & split.part, seen & own & ~split.part)
    casts = {
        f"{name} cast": value - sum(shift) / 3 for name, value in zip(("red", "green", "blue"), shift, strict=True)
    }
    by = casts | {"brightness": sum(shift) / 3}
    name = max(by, key=lambda one: abs(by[one]))
    evidence = {
        "class": class_name,
        "property": name,
        "share of its images": share,
        **{f"{one} beside the rest": value for one, value in by.items()},
        "apart (Ashman's D)": split.apart,
    }
    return Finding(
        NAME,
        f"{class_name}: {len(chosen):,} images have {'more' if by[name] > 0 else 'less'} {name} than the rest of it",
        "low",
        share,
        evidence,
        tuple(records.position[chosen].tolist()),
        tuple(float(value) for value in split.towards[chosen]),
        index,
        ColourCue(shift),
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


def _shift(records: Records, marked: NDArray[np.bool_], rest: NDArray[np.bool_]) -> tuple[float, float, float]:
    """What separates the colours of two groups of a class."""
    channels = (records.numbers[name] for name in ("red", "green", "blue"))
    red, green, blue = (float(np.nanmedian(one[marked]) - np.nanmedian(one[rest])) for one in channels)
    return red, green, blue


def _worth(test: _Test) -> float:
    return abs(test.effect) if test.errors else test.share * abs(test.effect)


def _beyond(values: Floats, limit: float, above: bool) -> NDArray[np.bool_]:
    return values > limit if above else values < limit


def _finite(values: Floats, group: NDArray[np.bool_]) -> Floats:
    found = values[group]
    return found[np.isfinite(found)]

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
    return [_finding(records, properties[test.name], test, p, len(tests), limits) for test, p in best.values()]


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


def _finding(records: Records, values: Floats, test: _Test, p: float, tests: int, limits: Thresholds) -> Finding:
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
    cue, confirmation = None, Confirmation("no cue")
    if not test.errors and test.name in _COLOURS:
        confirmation = Confirmation("not tested", note="its images vary as one whole, as if it were what the class is")
        if (marked := _marked(records, values, test, limits)) is not None:
            cue = ColourCue(_shift(records, marked, ~records.held_out & group & ~marked))
    return Finding(
        NAME,
        title,
        "low",
        _worth(test),
        evidence,
        tuple(records.position[chosen].tolist()),
        tuple(float(abs(value - test.limit)) for value in values[chosen]),
        test.index,
        cue,
        confirmation,
    )


def _marked(records: Records, values: Floats, test: _Test, limits: Thresholds) -> NDArray[np.bool_] | None:
    """Which images of a class, not held out, have what the rest of the class has not; None where it is one whole.

    What all of a class has may be the class: that pages are bright is no fault. What part of it has, and the rest
    clearly not, was put there. Two normal distributions must describe the class better than one (by BIC), and lie
    apart by Ashman's D (Ashman et al. 1994).
    """
    from sklearn.mixture import GaussianMixture

    seen = ~records.held_out & (records.target == test.index) & np.isfinite(values)
    column = values[seen][:, None]
    made: Any = GaussianMixture  # whose stub knows nothing of what a fit leaves
    one, two = (made(count, n_init=2, random_state=0).fit(column) for count in (1, 2))
    means, variances = two.means_[:, 0], two.covariances_[:, 0, 0]
    apart = float(abs(means[0] - means[1]) / np.sqrt(variances.mean()))
    which = int(means.argmax() if test.above else means.argmin())
    group = two.predict(column) == which
    if two.bic(column) >= one.bic(column) or apart < limits.apart or not limits.least_share <= group.mean() < 1:
        return None
    marked = np.zeros(len(records), bool)
    marked[np.flatnonzero(seen)[group]] = True
    return marked


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

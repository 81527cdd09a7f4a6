"""Which images are unlike all others: to the model, by what is measured of the pictures, or by both together?

By the distance to the tenth nearest (Ramaswamy, Rastogi and Shim 2000, "Efficient algorithms for mining outliers from
large data sets"), beside those of other images: nine that are alike do not hide each other. A model that was trained on
an outlier has learned where to put it, so that its embedding is asked together with the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Floats, Records
from .thresholds import Thresholds

NAME = "outliers"
QUESTION = "Which images are, to the model or as pictures, unlike all others of the class that it takes them for?"
_NEAREST = 10
_MOST = 10_000  # images among which the nearest are looked for, so that time is of the order of all images
_BLOCK = 1024


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    if records.embedding is not None or records.looks is not None:
        return ""
    return "the run has no embedding, and was begun before this was measured of pictures"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding: images that are far out in the embedding and as pictures, both added up.

    Behind them are listed those that are merely outside, which may be outliers.
    """
    if len(records) < limits.least_images:
        return []
    opinions = {"to the model": records.embedding, "as pictures": _pictures(records)}
    parts = {said: _beyond(records, features, limits) for said, features in opinions.items() if features is not None}
    if not parts:
        return []
    ranges = np.sum(list(parts.values()), axis=0)
    outside, far_out = limits.outside
    count = int((ranges > far_out).sum())
    if not count:
        return []
    rows = np.flatnonzero(ranges > outside)
    rows = rows[np.argsort(-ranges[rows], kind="stable")]
    judged, out = records.judged, ranges > far_out
    evidence = {
        "images": count,
        "share of all images": count / len(records),
        "how far out, at most": float(ranges[rows[0]]),
        **{f"{said} alone": int((one > far_out).sum()) for said, one in parts.items()},
        "further outside": len(rows) - count,
    }
    groups = {"wrong of them": out, "wrong of the others": ~out}
    rates = {said: records.wrong[group & judged] for said, group in groups.items()}
    evidence |= {said: float(wrong.mean()) for said, wrong in rates.items() if len(wrong)}
    title = f"{count:,} {'image is' if count == 1 else 'images are'} unlike all others of the class"
    positions, scores = records.position[rows].tolist(), ranges[rows].tolist()
    return [Finding(NAME, title, "low", count / len(records), evidence, tuple(positions), tuple(scores))]


def _pictures(records: Records) -> Floats | None:
    """(n, F) what is measured of pictures, each in interquartile ranges of all; None of runs that have no looks."""
    if records.looks is None:
        return None
    numbers, looks = records.numbers, records.looks
    colours = np.stack([numbers[name] for name in ("red", "green", "blue")], 1)
    casts = colours - colours.mean(1, keepdims=True)
    # By contrast, of which any picture can have more or less; with an end, below which nothing is sharp.
    sharp = np.log(numbers["sharpness"].clip(min=0) / numbers["contrast"].clip(min=1e-6) + 0.01)
    found = [numbers["brightness"], numbers["contrast"], casts[:, 0], casts[:, 2], sharp, *looks.values()]
    features = np.stack(found, 1)
    known = features[np.isfinite(features).all(1)]
    if not len(known):
        return None
    low, high = np.quantile(known, (0.25, 0.75), axis=0)
    return features / (high - low).clip(min=1e-3)


def _beyond(records: Records, features: Floats, limits: Thresholds) -> Floats:
    """(n,) how far out each is by its features (n, D); 0 where it is not, or they are unknown.

    The square root of the interquartile ranges by which a distance is beyond the upper quartile (Tukey 1977), of all
    images and of those of the class together: the one misses what is odd for its class, the other what is taken for a
    class of which all are far from each other. The root, so that neither embedding nor pictures outvote the other.
    """
    usable = np.flatnonzero(np.isfinite(features).all(1))
    found = np.zeros(len(records))
    if len(usable) >= limits.least_images:
        far = distances(features[usable])
        found[usable] = np.sqrt(_ranges(far, np.zeros(len(far)), limits) + _ranges(far, records.target[usable], limits))
    return found


def _ranges(far: Floats, group: NDArray[np.number], limits: Thresholds) -> Floats:
    """(n,) by how many interquartile ranges each is beyond the upper quartile of its group; small groups as one."""
    found = np.zeros(len(far))
    values, counts = np.unique(group, return_counts=True)
    large = values[counts >= limits.least_images]
    for own in [*(group == value for value in large.tolist()), ~np.isin(group, large)]:
        low, high = np.quantile(far[own] if own.sum() >= limits.least_images else far, (0.25, 0.75))
        found[own] = (far[own] - high).clip(min=0) / max(high - low, 1e-6)
    return found


def distances(features: Floats) -> Floats:
    """(n,) distance of features (n, D) to the tenth nearest others, of at most `_MOST` of them."""
    count, features = len(features), features.astype(np.float64)
    features -= features.mean(0)
    chosen = np.arange(count)
    if count > _MOST:
        chosen = np.sort(np.random.default_rng(0).choice(count, _MOST, replace=False))
    beside, place = features[chosen], np.full(count, -1)
    squares = (beside**2).sum(1)
    place[chosen] = np.arange(len(chosen))
    nearest = min(_NEAREST, len(chosen) - 1)
    found = np.empty(count)
    for start in range(0, count, _BLOCK):
        own = np.arange(start, min(start + _BLOCK, count))
        apart = squares - 2 * features[own] @ beside.T
        among = np.flatnonzero(place[own] >= 0)
        apart[among, place[own[among]]] = np.inf  # never itself
        found[own] = np.partition(apart, nearest - 1, axis=1)[:, nearest - 1]
    return np.sqrt((found + (features**2).sum(1)).clip(min=0))

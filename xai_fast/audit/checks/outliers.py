"""Which images are unlike all others: to the model and by what is measured of the pictures, taken together?

By the distance to the tenth nearest (Ramaswamy, Rastogi and Shim 2000, "Efficient algorithms for mining outliers from
large data sets"), beside those of other images: nine that are alike do not hide each other. A model that was trained on
an outlier has learned where to put it, and a picture of another thing can be as bright and coloured as those of a
class; but those that are near to the model are then others than those that are near as pictures. So there is one
distance for both: what no image is near in both is out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Floats, Records
from .statistics import discoveries
from .thresholds import Thresholds

NAME = "outliers"
QUESTION = "Which images are, to the model or as pictures, unlike all others of the class that it takes them for?"
_NEAREST = 10
_MOST = 10_000  # images among which the nearest are looked for, so that time is of the order of all images
_BLOCK = 256  # rows; beside as many as are chosen 20 MB


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    if records.embedding is not None or records.looks is not None:
        return ""
    return "the run has no embedding, and was begun before this was measured of pictures"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding: images that no others are near, in the embedding and as pictures at once.

    Every set has a tail, which is taken to fall off exponentially from the upper quartile on, as it does between the
    median and there. Where not one image is surely beyond it, nothing is said. Else so many of the farthest are said to
    be outliers that at most the accepted share of them is expected to be of the tail (Benjamini and Hochberg 1995);
    behind them are listed others of it, which may be outliers.
    """
    if len(records) < limits.least_images:
        return []
    asked = {"to the model": records.embedding, "as pictures": _pictures(records)}
    parts = {said: features for said, features in asked.items() if features is not None}
    if not parts:
        return []
    farther = _far_out(records, list(parts.values()), limits)
    chance = np.where(farther > 0, 0.25 * np.exp(-farther), 1.0)
    count = discoveries(chance, limits.sound_outliers)
    if len(records) * chance.min() >= 1 - limits.confidence or not count:
        return []
    order = np.argsort(-farther, kind="stable")
    rows = order[: max(count, int((chance < 1 - limits.tail).sum()))]
    out = np.zeros(len(records), bool)
    out[order[:count]] = True
    evidence = {
        "images": count,
        "share of all images": count / len(records),
        "chance of so far out, at least": float(chance[rows[0]]),
        "judged": " and ".join(parts),
        "further outside": len(rows) - count,
    }
    groups = {"wrong of them": out, "wrong of the others": ~out}
    rates = {said: records.wrong[group & records.judged] for said, group in groups.items()}
    evidence |= {said: float(wrong.mean()) for said, wrong in rates.items() if len(wrong)}
    title = f"{count:,} {'image is' if count == 1 else 'images are'} unlike all others of the class"
    positions, scores = records.position[rows].tolist(), farther[rows].tolist()
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


def _far_out(records: Records, parts: list[Floats], limits: Thresholds) -> Floats:
    """(n,) how far out each is by all that is known of it, of parts (n, D); 0 where it is not, or nothing is known."""
    known = np.stack([np.isfinite(part).all(1) for part in parts], 1)
    found = np.zeros(len(records))
    for pattern in np.unique(known[known.any(1)], axis=0):
        usable = np.flatnonzero(known[:, pattern].all(1))
        if len(usable) < limits.least_images:
            continue
        told = [part for part, is_known in zip(parts, pattern, strict=True) if is_known]
        if len(usable) < len(records):
            told = [part[usable] for part in told]
        beyond = _beyond(told, records.target[usable], limits)
        own = (known[usable] == pattern).all(1)
        found[usable[own]] = beyond[own]
    return found


def _beyond(parts: list[Floats], target: NDArray[np.integer], limits: Thresholds) -> Floats:
    """(n,) how far the distance of each is beyond the upper quartile; one more is e times as rare.

    The mean of that among all images and among those of its class: the one misses what is odd for its class, the other
    what is taken for a class of which all are far from each other. Parts (n, D) are in units of their usual distances.
    """
    far = distances(*parts, scales=[_usual(part) for part in parts])
    return (_rarity(far, np.zeros(len(far)), limits) + _rarity(far, target, limits)) / 2


def _usual(features: Floats) -> float:
    """The median distance of features (n, D) to the tenth nearest, of at most `_MOST` of them; 1 where all are one."""
    if len(features) > _MOST:
        features = features[np.sort(np.random.default_rng(0).choice(len(features), _MOST, replace=False))]
    found = float(np.median(distances(features)))
    return found if found > 1e-6 else 1.0


def _rarity(far: Floats, group: NDArray[np.number], limits: Thresholds) -> Floats:
    """(n,) how far each is beyond the upper quartile of its group, in lengths of the tail; small groups are one.

    Half of what is beyond the median is beyond the upper quartile: so their distance is log 2 of its lengths.
    """
    found = np.zeros(len(far))
    values, counts = np.unique(group, return_counts=True)
    large = values[counts >= limits.least_images]
    for own in [*(group == value for value in large.tolist()), ~np.isin(group, large)]:
        middle, high = np.quantile(far[own] if own.sum() >= limits.least_images else far, (0.5, 0.75))
        found[own] = (far[own] - high).clip(min=0) / max((high - middle) / np.log(2), 1e-6)
    return found


def distances(*parts: Floats, scales: Sequence[float] = (1.0,)) -> Floats:
    """(n,) distance of what parts (n, D) say together to the tenth nearest others, of at most `_MOST` of them.

    Each part is divided by its scale. Memory beside the parts is that of a block and of those that are chosen.
    """
    count, means = len(parts[0]), [part.mean(0, dtype=np.float64) for part in parts]

    def joined(rows: NDArray[np.integer]) -> Floats:
        told = zip(parts, means, scales, strict=True)
        return np.concatenate([(part[rows] - mean) / scale for part, mean, scale in told], 1)

    chosen = np.arange(count)
    if count > _MOST:
        chosen = np.sort(np.random.default_rng(0).choice(count, _MOST, replace=False))
    beside, place = joined(chosen), np.full(count, -1)
    squares = (beside**2).sum(1)
    place[chosen] = np.arange(len(chosen))
    nearest = min(_NEAREST, len(chosen) - 1)
    found = np.empty(count)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        own = joined(rows)
        apart = squares - 2 * own @ beside.T
        among = np.flatnonzero(place[rows] >= 0)
        apart[among, place[rows[among]]] = np.inf  # never itself
        apart.partition(nearest - 1, axis=1)
        found[rows] = apart[:, nearest - 1] + (own**2).sum(1)
    return np.sqrt(found.clip(min=0))

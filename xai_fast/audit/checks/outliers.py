"""Which images are unlike all others of what the model takes them for?

By the mean distance to the ten nearest embeddings (Ramaswamy, Rastogi and Shim 2000, "Efficient algorithms for mining
outliers from large data sets", take the tenth), beside those of other images of the class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Floats, Records
from .thresholds import Thresholds

NAME = "outliers"
QUESTION = "Which images are, to the model, unlike all others of the class that it takes them for?"
_NEAREST = 10
_MOST = 10_000  # images among which the nearest are looked for, so that time is of the order of all images
_BLOCK = 1024


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if records.embedding is not None else "the run has no embedding"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding: images whose distance is far out (Tukey 1977), by class, on a scale of logarithms.

    Behind them are listed those that are merely outside, which may be outliers.
    """
    if records.embedding is None or len(records) < limits.least_images:
        return []
    usable = np.flatnonzero(np.isfinite(records.embedding).all(1))
    if len(usable) < limits.least_images:
        return []
    far = np.full(len(records), np.nan)
    far[usable] = np.log(distances(records.embedding[usable]).clip(min=1e-6))
    ranges = _ranges(far, records.target, limits)
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
        "interquartile ranges beyond the quartile, at most": float(ranges[rows[0]]),
        "further outside": len(rows) - count,
    }
    groups = {"wrong of them": out, "wrong of the others": ~out}
    rates = {said: records.wrong[group & judged] for said, group in groups.items()}
    evidence |= {said: float(wrong.mean()) for said, wrong in rates.items() if len(wrong)}
    title = f"{count:,} {'image is' if count == 1 else 'images are'} unlike all others of the class"
    positions, scores = records.position[rows].tolist(), ranges[rows].tolist()
    return [Finding(NAME, title, "low", count / len(records), evidence, tuple(positions), tuple(scores))]


def _ranges(far: Floats, target: NDArray[np.integer], limits: Thresholds) -> Floats:
    """(n,) by how many interquartile ranges each is beyond the upper quartile of its class; small classes as one."""
    found = np.zeros(len(far))
    known = np.isfinite(far)
    values, counts = np.unique(target[known], return_counts=True)
    large = values[counts >= limits.least_images]
    groups = [known & (target == value) for value in large.tolist()]
    groups.append(known & ~np.isin(target, large))
    for group in groups:
        beside = far[group] if group.sum() >= limits.least_images else far[known]
        low, high = np.quantile(beside, (0.25, 0.75))
        found[group] = (far[group] - high) / max(high - low, 1e-3)
    return found


def distances(embedding: Floats) -> Floats:
    """(n,) mean distance of embeddings (n, D) of unit length to the nearest others, of at most `_MOST` of them."""
    count = len(embedding)
    chosen = np.arange(count)
    if count > _MOST:
        chosen = np.sort(np.random.default_rng(0).choice(count, _MOST, replace=False))
    beside, place = embedding[chosen], np.full(count, -1)
    place[chosen] = np.arange(len(chosen))
    nearest = min(_NEAREST, len(chosen) - 1)
    found = np.empty(count)
    for start in range(0, count, _BLOCK):
        own = np.arange(start, min(start + _BLOCK, count))
        close = embedding[own] @ beside.T
        among = np.flatnonzero(place[own] >= 0)
        close[among, place[own[among]]] = -np.inf  # never itself
        close = np.partition(close, -nearest, axis=1)[:, -nearest:].astype(np.float64)
        found[own] = np.sqrt((2 - 2 * close).clip(min=0)).mean(1)
    return found

"""Does a class fall into groups that are explained differently, one of which errs, or looks at one place?

Spectral clustering of maps per class (Lapuschkin et al. 2019, "Unmasking Clever Hans predictors", SpRAy), joined with
the model's embedding, because maps alone miss what is not bound to a place and groups that are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .cues import RegionCue
from .finding import Confirmation, Finding
from .records import Floats, Records
from .regions import GRID, Box
from .statistics import holm, more_often
from .thresholds import Thresholds

NAME = "clusters"
QUESTION = "Does a class fall into groups by maps and embedding, one of which errs more, or looks at one small place?"
_MOST = 600  # images of a class that are clustered; the others go where the nearest of them went
_GROUPS = 6
_NEIGHBOURS = 10


@dataclass(frozen=True)
class _Cluster:
    """Part of a class, by what is explained."""

    index: int
    members: NDArray[np.integer]  # rows
    rest: NDArray[np.integer]
    p_errors: float  # that it errs as the rest of its class
    box: Box | None = None  # the small place that it looks at
    p_place: float = 1.0  # that its class looks there as other classes do


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """Per class at most one finding for the groups that err more than the rest, and one for a small place."""
    found = _kept(records, limits)
    corrected = holm([p for one in found for p in (one.p_errors, one.p_place)]) if found else []
    erring: dict[int, list[tuple[_Cluster, float]]] = {}
    looking: dict[int, list[tuple[_Cluster, float]]] = {}
    for number, one in enumerate(found):
        p_errors, p_place = (float(p) for p in corrected[2 * number : 2 * number + 2])
        if p_errors < limits.alpha and _gain(records, one) >= limits.error_gain:
            erring.setdefault(one.index, []).append((one, p_errors))
        elif p_place < limits.alpha:
            looking.setdefault(one.index, []).append((one, p_place))
    return [
        *(_erring(records, [one for one, _ in group], max(p for _, p in group)) for group in erring.values()),
        *(_looking(records, *max(group, key=lambda pair: len(pair[0].members))) for group in looking.values()),
    ]


_KEEPS: WeakKeyDictionary[Records, tuple[Thresholds, list[_Cluster]]] = WeakKeyDictionary()


def _kept(records: Records, limits: Thresholds) -> list[_Cluster]:
    """The clusters of records, which the check and the report's pictures of groups both need."""
    if (known := _KEEPS.get(records)) is None or known[0] != limits:
        known = _KEEPS[records] = (limits, list(_clusters(records, limits)))
    return known[1]


@dataclass(frozen=True)
class Group:
    """A cluster, as it is shown.

    Attributes:
        class_index: the class that its maps explain.
        images: how many.
        errors: share of those with a label that are wrong; None where none has one.
        errors_elsewhere: the same of the rest of the class.
        labels: share of the commonest label, and its class; None where no label is known.
        grid: (GRID * GRID) shares of what speaks for the class, on average.
        positions: of its images by their place in the manifest, the most typical first; some of them.
    """

    class_index: int
    images: int
    errors: float | None
    errors_elsewhere: float | None
    labels: tuple[float, int] | None
    grid: tuple[float, ...]
    positions: tuple[int, ...]


_SHOWN = 48  # images of a group that are named


def groups(records: Records, limits: Thresholds) -> list[Group]:
    """The groups into which classes fall, those that err more than the rest of their class first."""
    found = [_group(records, one) for one in _kept(records, limits)]
    return sorted(found, key=lambda one: (one.errors_elsewhere or 0) - (one.errors or 0))


def _group(records: Records, one: _Cluster) -> Group:
    mean = records.grid[one.members].mean(0)
    # By Hellinger's distance, as they were grouped.
    apart = np.square(np.sqrt(records.grid[one.members]) - np.sqrt(mean)).sum(1)
    typical = one.members[np.argsort(apart, kind="stable")][:_SHOWN]
    known = records.label[one.members]
    known = known[known >= 0]
    labels = None
    if len(known):
        values, counts = np.unique(known, return_counts=True)
        labels = (float(counts.max() / len(known)), int(values[counts.argmax()]))
    rates = []
    for rows in (one.members, one.rest):
        judged = rows[records.judged[rows]]
        rates.append(float(records.wrong[judged].mean()) if len(judged) else None)
    numbers = tuple(round(float(value), 6) for value in mean)
    positions = tuple(records.position[typical].tolist())
    return Group(one.index, len(one.members), rates[0], rates[1], labels, numbers, positions)


def _clusters(records: Records, limits: Thresholds) -> Iterator[_Cluster]:
    usable = np.isfinite(records.grid).all(1) & (records.target >= 0)
    for index in np.unique(records.target[usable]).tolist():
        rows = np.flatnonzero(usable & (records.target == index))
        if len(rows) < 2 * limits.least_images:
            continue
        group = _grouped(_features(records, rows))
        for number in np.unique(group).tolist():
            members, rest = rows[group == number], rows[group != number]
            if min(len(members), len(rest)) < limits.least_images // 2:
                continue
            judged, wrong = records.judged, records.wrong
            counts = [int(mask[one].sum()) for one in (members, rest) for mask in (wrong, judged)]
            p_errors = more_often(*counts) if counts[1] and counts[3] else 1.0
            yield _Cluster(index, members, rest, p_errors, *_place(records, index, members, limits))


def _features(records: Records, rows: NDArray[np.integer]) -> Floats:
    """Roots of shares, whose distances are Hellinger's, beside the embedding, each of unit length."""
    parts = [np.sqrt(records.grid[rows])]
    if records.embedding is not None:
        parts.append(np.nan_to_num(records.embedding[rows]))
    return np.concatenate(parts, 1)


def _grouped(features: Floats) -> NDArray[np.integer]:
    """The group of each row: as many as the largest gap among the graph's first eigenvalues says, at least two."""
    from scipy.linalg import eigh
    from sklearn.cluster import KMeans
    from sklearn.neighbors import NearestNeighbors, kneighbors_graph

    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(len(features))[:_MOST])
    seen = features[chosen]
    graph = kneighbors_graph(seen, min(_NEIGHBOURS, len(seen) - 1)).toarray()
    graph = np.maximum(graph, graph.T)
    root = 1 / np.sqrt(graph.sum(1))
    laplacian = np.eye(len(seen)) - root[:, None] * graph * root
    values, vectors = eigh(laplacian, subset_by_index=(0, min(_GROUPS, len(seen) - 1)))
    count = int(np.argmax(np.diff(values)[1:])) + 2
    spread = vectors[:, :count]
    spread = spread / np.linalg.norm(spread, axis=1, keepdims=True).clip(min=1e-12)
    made: Any = KMeans  # whose stub knows one way to say how often it starts
    group = made(count, n_init=5, random_state=0).fit_predict(spread)
    if len(seen) == len(features):
        return group
    return group[NearestNeighbors(n_neighbors=1).fit(seen).kneighbors(features, return_distance=False)[:, 0]]


def _gain(records: Records, one: _Cluster) -> float:
    """By how much its error rate exceeds that of the rest."""
    inside, outside = (rows[records.judged[rows]] for rows in (one.members, one.rest))
    if not (len(inside) and len(outside)):
        return 0.0
    return float(records.wrong[inside].mean() - records.wrong[outside].mean())


def _place(records: Records, index: int, members: NDArray[np.integer], limits: Thresholds) -> tuple[Box | None, float]:
    """The smallest box around the cells that hold half of a cluster's mean map, and how rarely others look there.

    Objects of any class may be there: what counts is that the class's images look there more often than those of
    other classes. The box is chosen on one half of the images and counted on the other. None where it is no small
    place.
    """
    chosen, counted = members[~records.held_out[members]], records.held_out & np.isfinite(records.grid[:, 0])
    if len(chosen) < limits.least_images // 2:
        return None, 1.0
    mean = records.grid[chosen].mean(0)
    order = np.argsort(-mean)
    cells = order[: int(np.searchsorted(np.cumsum(mean[order]), 0.5)) + 1]
    rows, columns = cells // GRID, cells % GRID
    sides = (rows.min() / GRID, columns.min() / GRID, (rows.max() + 1) / GRID, (columns.max() + 1) / GRID)
    box = Box(*(float(side) for side in sides))
    if box.area > limits.small_place:
        return None, 1.0
    mass = _mass(records, box)
    there = mass >= np.quantile(mass[chosen], 0.25)
    own, others = counted & (records.target == index), counted & (records.target != index)
    if not others.any() or not own.any():
        return None, 1.0
    # The rarest of ordinary claims: only a class that looks there several times as often as the rest is worth a word.
    if there[own].mean() < limits.least_lift * there[others].mean():
        return None, 1.0
    return box, more_often(int((there & own).sum()), int(own.sum()), int((there & others).sum()), int(others.sum()))


def _mass(records: Records, box: Box) -> Floats:
    """(n,) share of what speaks for the target in a box of whole cells."""
    rows, columns = (slice(round(a * GRID), round(b * GRID)) for a, b in ((box.top, box.bottom), (box.left, box.right)))
    return records.grid.reshape(-1, GRID, GRID)[:, rows, columns].sum((1, 2))


def _erring(records: Records, group: list[_Cluster], p: float) -> Finding:
    """Of all clusters of a class that err; low, because that a part is harder than the rest is no fault by itself."""
    members = np.unique(np.concatenate([one.members for one in group]))
    rest = np.setdiff1d(np.concatenate([one.rest for one in group]), members)
    one = _Cluster(group[0].index, members, rest, p)
    gain, name = _gain(records, one), records.name(one.index)
    chosen = members[np.argsort(~records.wrong[members], kind="stable")]
    rate = float(records.wrong[members[records.judged[members]]].mean())
    evidence = {"class": name, "images": len(chosen), "errors": rate, "more than the rest": gain, "p (Holm)": p}
    return Finding(
        NAME,
        f"explained as {name}: a group of {len(chosen):,} images, {rate:.0%} of them wrong",
        "low",
        gain,
        evidence,
        tuple(records.position[chosen].tolist()),
        tuple(float(value) for value in records.wrong[chosen]),
        one.index,
    )


def _looking(records: Records, one: _Cluster, p: float) -> Finding:
    box = one.box
    assert box is not None
    mass = _mass(records, box)
    chosen = one.members[np.argsort(-mass[one.members], kind="stable")]
    name = records.name(one.index)
    where = f"rows {box.top:.0%} to {box.bottom:.0%}, columns {box.left:.0%} to {box.right:.0%}"
    lift = float(mass[chosen].mean()) / box.area
    evidence = {
        "class": name,
        "images": len(chosen),
        "place": where,
        "attribution per area": lift,
        "p (Holm)": p,
    }
    return Finding(
        NAME,
        f"{name}: a group of {len(chosen):,} images in which the model looks at one place",
        "low",
        lift * len(chosen) / (len(one.members) + len(one.rest)),
        evidence,
        tuple(records.position[chosen].tolist()),
        tuple(float(value) for value in mass[chosen]),
        one.index,
        RegionCue(box),
        Confirmation("not tested"),
    )

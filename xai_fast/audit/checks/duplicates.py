"""Which pictures are there twice: to the pixel, nearly, mirrored or turned; with other labels, or in other splits?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .finding import Finding, Severity
from .near_pairs import near_pairs
from .records import Records
from .thresholds import Thresholds
from .turned import turned, upright

NAME = "duplicates"
QUESTION = "Which pictures are there twice, to the pixel, nearly or turned; with other labels, or in other splits?"
_SPLITS = ("split", "subset", "fold", "partition", "set")
_BITS = 128

_Pairs = tuple[NDArray[np.integer], NDArray[np.integer]]
"""(m, 2) places, and (m,) in how many of `_BITS` bits the two differ."""


@dataclass(frozen=True)
class _Group:
    """Pictures that are one."""

    rows: NDArray[np.integer]
    exact: bool  # all of them to the pixel
    turned: bool  # some of them are the others mirrored or turned
    alike: float  # share of bits that the least alike of the pairs that join them have in common; 1 of exact ones


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if records.codes is not None else "the run was begun before pictures were given codes; run it anew"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding per column that tells splits, one of different labels, and one of all others."""
    if lacking(records):
        return []
    upright_only, groups = _groups(records, limits)
    found: list[Finding] = []
    said = np.zeros(len(records), bool)
    for column in (name for name in records.groups if name.lower() in _SPLITS):
        split = records.groups[column]
        across = [one for one in groups if len(set(split[one.rows].tolist()) - {""}) > 1]
        if across:
            said[np.concatenate([one.rows for one in across])] = True
            found.append(_across(records, column, across, limits))
    # What is turned may well be another class: left and right, 6 and 9.
    labels = [one for one in upright_only if len(set(records.label[one.rows].tolist()) - {-1}) > 1]
    if labels:
        said[np.concatenate([one.rows for one in labels])] = True
        found.append(_told_apart(records, labels, limits))
    others = [one for one in groups if not said[one.rows].all()]
    if others:
        share = _share(records, others)
        found.append(_finding(records, "are there more than once", "low", share, others, {}))
    return found


def _groups(records: Records, limits: Thresholds) -> tuple[list[_Group], list[_Group]]:
    """The surest first: those of pictures that are upright, and those of all."""
    codes = records.codes
    assert codes is not None
    _, first, same = np.unique(codes[:, 0], return_index=True, return_inverse=True)
    near, about = _near(records, first, limits), _turned(records, first, limits)
    every = np.concatenate([near[0], about[0]]), np.concatenate([near[1], about[1]])
    alone = _joined(len(first), near[0])[same]
    return _grouped(same, near, alone), _grouped(same, every, alone)


def _grouped(same: NDArray[np.integer], pairs: _Pairs, alone: NDArray[np.integer]) -> list[_Group]:
    """Groups of the images (n,) whose contents `same` are joined by pairs; `alone` is what joins those upright."""
    group = _joined(same.max(initial=-1) + 1, pairs[0])
    worst = np.zeros(group.max(initial=-1) + 1, np.int64)
    np.maximum.at(worst, group[pairs[0][:, 0]], pairs[1])
    found = []
    for rows in _together(group[same]):
        exact, turns = len(np.unique(same[rows])) == 1, len(np.unique(alone[rows])) > 1
        found.append(_Group(rows, exact, turns, 1 - float(worst[group[same[rows[0]]]]) / _BITS))
    return sorted(found, key=lambda one: (not one.exact, one.turned, -one.alike, one.rows[0]))


def _near(records: Records, first: NDArray[np.integer], limits: Thresholds) -> _Pairs:
    """Pairs of places in `first`, whose pictures differ in a pixel."""
    assert records.codes is not None
    usable = _usable(records, first, limits)
    bits = np.ascontiguousarray(records.codes[first[usable], 1:]).view(np.uint8).reshape(len(usable), -1)
    pairs, apart = near_pairs(bits, limits.twins)
    agree = _agree(records, first[usable[pairs]], limits)
    return usable[pairs[agree]], apart[agree]


def _turned(records: Records, first: NDArray[np.integer], limits: Thresholds) -> _Pairs:
    """Pairs of places in `first`, of whose pictures one is the other mirrored or turned, by half of the bits."""
    assert records.codes is not None
    usable = _usable(records, first, limits)
    waves = records.codes[first[usable], 1]
    own, contrast = upright(waves), records.numbers["contrast"][first]
    found: list[_Pairs] = []
    for other in turned(waves):
        pairs, apart = near_pairs(np.concatenate([own, other]), limits.twins // 2)
        low, high = pairs.T
        crossing = (low < len(own)) & (high >= len(own)) & (high - len(own) != low)
        pairs, apart = usable[np.stack([low, high - len(own)], 1)[crossing]], apart[crossing]
        ratio = contrast[pairs[:, 0]] / contrast[pairs[:, 1]]
        agree = _agree(records, first[pairs], limits) & (np.abs(np.log(ratio)) <= np.log(limits.twin_contrast))
        found.append((pairs[agree], 2 * apart[agree]))
    pairs, apart = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pairs, apart


def _usable(records: Records, first: NDArray[np.integer], limits: Thresholds) -> NDArray[np.integer]:
    """Places whose pictures hold something: what is next to empty has codes of noise."""
    assert records.looks is not None
    told = records.numbers["contrast"][first] >= limits.flat
    return np.flatnonzero(told & (records.looks["entropy"][first] >= limits.empty))


def _agree(records: Records, pairs: NDArray[np.integer], limits: Thresholds) -> NDArray[np.bool_]:
    """(m,) whether the colours of pairs (m, 2) of rows are alike, beside their brightness."""
    colours = np.stack([records.numbers[name] for name in ("red", "green", "blue")], 1)
    casts = colours - colours.mean(1, keepdims=True)
    return np.abs(casts[pairs[:, 0]] - casts[pairs[:, 1]]).max(1, initial=0) <= limits.twin_cast


def _joined(count: int, pairs: NDArray[np.integer]) -> NDArray[np.integer]:
    """(count,) which group each belongs to, where pairs belong together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _together(group: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
    """Rows of each group of two or more."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order])) + 1
    return (rows for rows in np.split(order, starts) if len(rows) > 1)


def _across(records: Records, column: str, groups: list[_Group], limits: Thresholds) -> Finding:
    """Of pictures in several splits: what a model was trained on is no test of it."""
    split = records.groups[column]
    rows = np.concatenate([one.rows for one in groups])
    shares = {value: float((split[rows] == value).sum() / (split == value).sum()) for value in sorted(set(split[rows]))}
    severity: Severity = "high" if max(shares.values()) >= limits.leaked else "medium"
    more = {"column": column} | {f"of {value or 'nothing'}, also elsewhere": share for value, share in shares.items()}
    return _finding(records, f"are in several splits ({column})", severity, max(shares.values()), groups, more)


def _told_apart(records: Records, groups: list[_Group], limits: Thresholds) -> Finding:
    """Of pictures with several labels: all of them but one are wrong, or the classes are not exclusive."""
    share = _share(records, groups)
    labels = [sorted(set(records.label[one.rows].tolist()) - {-1}) for one in groups]
    names = [", ".join(map(records.name, one)) for one in labels]
    commonest = max(names, key=names.count)
    severity: Severity = "high" if share >= limits.many_mislabelled else "medium"
    more = {"commonest": f"{commonest} ({names.count(commonest)})"}
    return _finding(records, "have several labels", severity, share, groups, more)


def _finding(
    records: Records, what: str, severity: Severity, strength: float, groups: list[_Group], more: Mapping[str, object]
) -> Finding:
    rows = np.concatenate([one.rows for one in groups])
    evidence = {
        "pictures": len(groups),
        "images": len(rows),
        "same to the pixel": sum(one.exact for one in groups),
        "nearly the same": sum(not one.exact and not one.turned for one in groups),
        "mirrored or turned": sum(one.turned for one in groups),
        "most images of one": max(len(one.rows) for one in groups),
        "bits alike, the least": min(one.alike for one in groups),
        "share of all images": _share(records, groups),
        **more,
    }
    scores = tuple(score for one in groups for score in (one.alike,) * len(one.rows))
    what = what if len(groups) > 1 else what.replace("are ", "is ", 1).replace("have ", "has ", 1)
    title = f"{len(groups):,} {'pictures' if len(groups) > 1 else 'picture'} {what}: {len(rows):,} images"
    return Finding(NAME, title, severity, strength, evidence, tuple(records.position[rows].tolist()), scores)


def _share(records: Records, groups: list[_Group]) -> float:
    return sum(len(one.rows) for one in groups) / len(records)

"""Which labels are probably wrong: the model and its neighbours in the embedding agree on another class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .finding import Finding, Severity
from .records import Floats, Records
from .thresholds import Thresholds

NAME = "mislabelled"
QUESTION = "Which labels do the model, and the images that are nearest to it in its embedding, both contradict?"
_EVEN = 0.5  # another class is as likely as the label's
_NEAREST = 20
_MOST = 20_000  # images among which the nearest are looked for, so that time is of the order of all images
_BLOCK = 1024


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding; its images are in order of doubt: those that count first, then those that may be wrong."""
    judged = records.judged & np.isfinite(records.numbers["label_probability"])
    if judged.sum() < limits.least_images or len(np.unique(records.label[judged])) < 2:
        return []
    doubt = doubts(records, judged)
    found = np.flatnonzero(judged & (doubt >= limits.doubt))
    if not len(found):
        return []
    found = found[np.argsort(-doubt[found], kind="stable")]
    listed = np.flatnonzero(judged & (doubt >= _EVEN))
    listed = listed[np.argsort(-doubt[listed], kind="stable")]
    share = len(found) / int(judged.sum())
    severity: Severity = (
        "high" if share >= limits.many_mislabelled else "medium" if share >= limits.some_mislabelled else "low"
    )
    pairs = [(records.label[row], records.prediction[row]) for row in found]
    commonest = max(set(pairs), key=pairs.count)
    evidence = {
        "images": len(found),
        "share of those with a label": share,
        "further in doubt": len(listed) - len(found),
        "commonest": f"labelled {records.name(int(commonest[0]))}, looks like {records.name(int(commonest[1]))}",
        "neighbours asked": "yes" if records.embedding is not None else "no: the run has no embedding",
    }
    return [
        Finding(
            NAME,
            f"{len(found):,} labels are probably wrong",
            severity,
            share,
            evidence,
            tuple(records.position[listed].tolist()),
            tuple(float(value) for value in doubt[listed]),
        )
    ]


def doubts(records: Records, judged: NDArray[np.bool_]) -> Floats:
    """(n,) in [0, 1], NaN where not judged: the larger, the likelier it is that the label is wrong.

    The mean of two opinions. That of the model, which may have learned the label by heart, is its normalised margin,
    (1 + best other - own) / 2 (Northcutt et al. 2021, "Confident Learning"). The other is that of the labels of the
    nearest in its embedding, of which the label itself is none.
    """
    own = records.numbers["label_probability"]
    agrees = records.prediction == records.label
    other = np.where(agrees, 1 - own, records.numbers["probability"])
    margin = (1 + other - own) / 2
    doubt = np.where(judged, margin, np.nan)
    if records.embedding is not None:
        usable = judged & np.isfinite(records.embedding).all(1)
        if usable.sum() > _NEAREST:  # or there is nobody to ask
            doubt[usable] = (doubt[usable] + _contradicted(records.embedding[usable], records.label[usable])) / 2
    return doubt


def _contradicted(embedding: Floats, label: NDArray[np.integer]) -> Floats:
    """(n,) in [0, 1]: how much the labels of the nearest are for another class, beyond what is usual for the label's.

    Two classes that resemble each other are each other's neighbours, all of their images, and no label is in doubt for
    it. So from the shares of classes among the nearest are taken away their means over all images of the same label;
    half the margin is what is left: 0 where the neighbours are as ever, 1 where all are of a class that others of this
    label have none of.
    """
    _, label, counts = np.unique(label, return_inverse=True, return_counts=True)
    pool = np.arange(len(label))
    if len(pool) > _MOST:
        pool = np.sort(np.random.default_rng(0).choice(len(pool), _MOST, replace=False))
    # No more of them than a fourth of what a class has there.
    nearest = int(np.clip(np.median(counts) * len(pool) / len(label) / 4, 5, _NEAREST).clip(max=len(pool) - 1))
    beside = label[_nearest(embedding, pool, nearest)]
    usual = np.zeros((len(counts), len(counts)))
    np.add.at(usual, (label[:, None], beside), 1 / nearest)
    usual /= counts[:, None]
    found = np.empty(len(label))
    for start in range(0, len(label), _BLOCK):
        own = label[start : start + _BLOCK]
        rows = np.arange(len(own))
        shares = -usual[own]
        np.add.at(shares, (rows[:, None], beside[start : start + _BLOCK]), 1 / nearest)
        of_label = shares[rows, own].copy()
        shares[rows, own] = -np.inf
        found[start : start + _BLOCK] = (shares.max(1) - of_label) / 2
    return found.clip(0, 1)


def _nearest(embedding: Floats, pool: NDArray[np.integer], count: int) -> NDArray[np.integer]:
    """(n, count) the nearest of each of embeddings (n, D) of unit length among the rows `pool`, never itself."""
    beside, place = embedding[pool].T, np.full(len(embedding), -1)
    place[pool] = np.arange(len(pool))
    found = np.empty((len(embedding), count), np.int64)
    for start in range(0, len(embedding), _BLOCK):
        own = np.arange(start, min(start + _BLOCK, len(embedding)))
        alike = embedding[own] @ beside
        among = np.flatnonzero(place[own] >= 0)
        alike[among, place[own[among]]] = -np.inf
        found[own] = pool[np.argpartition(-alike, count - 1, axis=1)[:, :count]]
    return found

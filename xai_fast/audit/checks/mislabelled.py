"""Which labels are probably wrong: the model and its neighbours in the embedding agree on another class.

Where the model is at hand it is asked again about the same pictures, moved by a few pixels (`moved`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .finding import Finding, Severity
from .moved import Moved, asked
from .records import Floats, Records
from .subject import NoSubjectError, Subject
from .thresholds import Thresholds

NAME = "mislabelled"
QUESTION = "Which labels do the model, and the images that are nearest to it in its embedding, both contradict?"
_NEAREST = 20
_MOST = 20_000  # images among which the nearest are looked for, so that time is of the order of all images
_BLOCK = 256  # rows; beside as many as are looked among 40 MB


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding; its images are in order of doubt: those that count first, then those that may be wrong."""
    return _found(records, limits, None)


def asked_again(found: list[Finding], records: Records, subject: Subject, limits: Thresholds) -> list[Finding]:
    """Findings of all checks, of which that about labels is by what the model says of moved pictures, too."""
    judged = _judged(records, limits)
    if not judged.any():
        return found
    try:
        answers = asked(records, doubts(records, judged), subject, limits)
    except (NoSubjectError, ValueError):  # no class scores, or none that are finite
        return found
    return [*(one for one in found if one.check != NAME), *_found(records, limits, answers)]


def _judged(records: Records, limits: Thresholds) -> NDArray[np.bool_]:
    """(n,) whose labels are judged; none of too few, or of one class."""
    judged = records.judged & np.isfinite(records.numbers["label_probability"])
    enough = judged.sum() >= limits.least_images and len(np.unique(records.label[judged])) > 1
    return judged if enough else np.zeros(len(records), bool)


def _found(records: Records, limits: Thresholds, again: Moved | None) -> list[Finding]:
    judged = _judged(records, limits)
    if not judged.any():
        return []
    doubt = doubts(records, judged, again)
    limit = np.full(len(records), limits.doubt)
    if again is not None:
        limit[again.rows] = limits.doubt_again
    found = np.flatnonzero(judged & (doubt >= limit))
    if not len(found):
        return []
    found = found[np.argsort(-doubt[found], kind="stable")]
    further = np.flatnonzero(judged & (doubt >= limits.some_doubt) & (doubt < limit))
    listed = np.concatenate([found, further[np.argsort(-doubt[further], kind="stable")]])
    share = len(found) / int(judged.sum())
    severity: Severity = (
        "high" if share >= limits.many_mislabelled else "medium" if share >= limits.some_mislabelled else "low"
    )
    looks = _looks_like(records, again)
    pairs = [(records.label[row], looks[row]) for row in found]
    commonest = max(set(pairs), key=pairs.count)
    evidence = {
        "images": len(found),
        "share of those with a label": share,
        "further in doubt": len(listed) - len(found),
        "commonest": f"labelled {records.name(int(commonest[0]))}, looks like {records.name(int(commonest[1]))}",
        "neighbours asked": "yes" if records.embedding is not None else "no: the run has no embedding",
        "asked again, moved by some pixels": 0 if again is None else len(again.rows),
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


def _looks_like(records: Records, again: Moved | None) -> NDArray[np.integer]:
    """(n,) what the model takes images for; where that is the label, what it takes them for once they are moved."""
    looks = records.prediction.copy()
    if again is not None and len(again.rows):
        by_heart = looks[again.rows] == records.label[again.rows]
        looks[again.rows[by_heart]] = again.probabilities[by_heart].argmax(1)
    return looks


def doubts(records: Records, judged: NDArray[np.bool_], again: Moved | None = None) -> Floats:
    """(n,) in [0, 1], NaN where not judged: the larger, the likelier it is that the label is wrong.

    The mean of up to three opinions. That of the model, which may have learned the label by heart, is its normalised
    margin, (1 + best other - own) / 2 (Northcutt et al. 2021, "Confident Learning"). The second is that of the labels
    of the nearest in its embedding, of which the label itself is none. Where the picture was moved, the neighbours are
    those of what it is then, and the third is what the model says of that; both beyond what is usual for the label.
    """
    own = records.numbers["label_probability"]
    agrees = records.prediction == records.label
    other = np.where(agrees, 1 - own, records.numbers["probability"])
    margin = (1 + other - own) / 2
    beside, pool = np.full(len(records), np.nan), None
    if records.embedding is not None:
        usable = np.flatnonzero(judged & np.isfinite(records.embedding).all(1))
        if len(usable) > _NEAREST:  # or there is nobody to ask
            pool = _pooled(records.embedding, records.label, usable)
            beside[usable] = _contradicted(pool, records.embedding, usable, records.label)
    opinions = [margin, beside]
    if again is not None:
        known = np.flatnonzero(judged[again.rows] & (records.label[again.rows] < again.probabilities.shape[1]))
        rows, fair = again.rows[known], again.fair[known]
        said = np.full(len(records), np.nan)
        said[rows] = _beyond_usual(again.probabilities[known], records.label[rows], fair)
        opinions.append(said)
        if pool is not None and again.embeddings:
            shares = np.mean([_shares(pool, one[known], rows) for one in again.embeddings], axis=0)
            beside[rows] = _beyond_usual(shares, pool.code(records.label[rows]), fair)
    told = np.stack(opinions)
    there = np.isfinite(told)
    doubt = np.where(there, told, 0).sum(0) / there.sum(0).clip(min=1)
    return np.where(judged, doubt, np.nan)


def _beyond_usual(shares: Floats, label: NDArray[np.integer], fair: NDArray[np.bool_]) -> Floats:
    """(m,) in [0, 1]: how much shares (m, K) of classes are for another one, beyond what is usual for the label.

    Two classes that resemble each other are taken for each other, all of their images, and no label is in doubt for it.
    So from the shares are taken away their means over images of the same label (those that are `fair`); half the margin
    is what is left: 0 where all is as ever, 1 where all is for a class that others of this label have none of.
    """
    shares = shares.astype(np.float64)
    for index in np.unique(label).tolist():
        own = label == index
        if (own & fair).any():
            shares[own] -= shares[own & fair].mean(0)
    return _margin(shares, label)


def _margin(shares: Floats, label: NDArray[np.integer]) -> Floats:
    """(m,) in [0, 1]: half of by how much another class than the label's has the largest share; writes to `shares`."""
    rows = np.arange(len(shares))
    of_label = shares[rows, label].copy()
    shares[rows, label] = -np.inf
    return ((shares.max(1, initial=-np.inf) - of_label) / 2).clip(0, 1)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Images among which the nearest are looked for, and how many of them are asked."""

    embedding: Floats  # (p, D)
    rows: NDArray[np.integer]  # (p,) of the records
    label: NDArray[np.integer]  # (p,) places in `classes`
    classes: NDArray[np.integer]  # rising; every label that there is
    nearest: int

    def code(self, label: NDArray[np.integer]) -> NDArray[np.integer]:
        """Places of labels in `classes`."""
        return np.searchsorted(self.classes, label)


def _pooled(embedding: Floats, label: NDArray[np.integer], usable: NDArray[np.integer]) -> _Pool:
    classes, counts = np.unique(label[usable], return_counts=True)
    rows = usable
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))
    # No more of them than a fourth of what a class has there.
    fourth = np.median(counts) * len(rows) / len(usable) / 4
    nearest = int(np.clip(fourth, 5, _NEAREST).clip(max=len(rows) - 1))
    return _Pool(embedding[rows], rows, np.searchsorted(classes, label[rows]), classes, nearest)


def _contradicted(pool: _Pool, embedding: Floats, usable: NDArray[np.integer], label: NDArray[np.integer]) -> Floats:
    """`_beyond_usual` of the labels of the nearest of every usable row, in blocks."""
    code, blocks = pool.code(label[usable]), range(0, len(usable), _BLOCK)
    beside = np.empty((len(usable), pool.nearest), np.int32)
    usual = np.zeros((len(pool.classes), len(pool.classes)))
    for start in blocks:
        own = slice(start, start + _BLOCK)
        beside[own] = pool.label[_nearest(pool, embedding[usable[own]], usable[own])]
        np.add.at(usual, (code[own, None], beside[own]), 1 / pool.nearest)
    usual /= np.bincount(code, minlength=len(usual)).clip(min=1)[:, None]
    found = np.empty(len(usable))
    for start in blocks:
        own = slice(start, start + _BLOCK)
        shares = -usual[code[own]]
        np.add.at(shares, (np.arange(len(shares))[:, None], beside[own]), 1 / pool.nearest)
        found[own] = _margin(shares, code[own])
    return found


def _shares(pool: _Pool, embedding: Floats, rows: NDArray[np.integer]) -> Floats:
    """(m, K) shares of the classes of the pool among the nearest of embeddings (m, D), which are of these rows."""
    found = np.zeros((len(rows), len(pool.classes)))
    for start in range(0, len(rows), _BLOCK):
        own = slice(start, start + _BLOCK)
        beside = pool.label[_nearest(pool, embedding[own], rows[own])]
        np.add.at(found[own], (np.arange(len(beside))[:, None], beside), 1 / pool.nearest)
    return found


def _nearest(pool: _Pool, embedding: Floats, rows: NDArray[np.integer]) -> NDArray[np.integer]:
    """(m, count) places in the pool of the nearest of embeddings (m, D) of unit length; never the row's own."""
    alike = embedding @ pool.embedding.T
    place = np.searchsorted(pool.rows, rows).clip(max=len(pool.rows) - 1)
    own = np.flatnonzero(pool.rows[place] == rows)
    alike[own, place[own]] = -np.inf
    np.negative(alike, out=alike)
    return np.argpartition(alike, pool.nearest - 1, axis=1)[:, : pool.nearest]

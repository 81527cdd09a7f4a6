"""Which labels are probably wrong: the model and its neighbours in the embedding agree on another class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .finding import Finding, Severity
from .records import Floats, Records
from .thresholds import Thresholds

NAME = "mislabelled"
QUESTION = "Which labels do the model, and a classifier that never saw them, both contradict?"
_EVEN = 0.5  # another class is as likely as the label's
_FOLDS = 5
_MOST = 20_000  # rows that a classifier is fitted on


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
        "out of fold": "embedding" if records.embedding is not None else "no: the run has no embedding",
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

    The normalised margin (Northcutt et al. 2021, "Confident Learning"), (1 + best other - own) / 2, of the mean of two
    opinions: the model's, which may have learned the label by heart, and that of a linear classifier on its
    embedding which is fitted on the other folds.
    """
    own = records.numbers["label_probability"]
    agrees = records.prediction == records.label
    other = np.where(agrees, 1 - own, records.numbers["probability"])
    margin = (1 + other - own) / 2
    doubt = np.where(judged, margin, np.nan)
    if records.embedding is not None:
        usable = judged & np.isfinite(records.embedding).all(1)
        doubt[usable] = (doubt[usable] + _out_of_fold(records.embedding[usable], records.label[usable])) / 2
    return doubt


def _out_of_fold(embedding: Floats, label: NDArray[np.integer]) -> Floats:
    """The margin of each label, by a classifier that was not fitted on it."""
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    fold = random.permutation(len(label)) % _FOLDS
    margin = np.full(len(label), 0.5)
    for number in range(_FOLDS):
        fitted, asked = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(fitted) > _MOST:
            fitted = random.choice(fitted, _MOST, replace=False)
        if len(np.unique(label[fitted])) < 2:
            continue
        # Embeddings have unit length: without a weak penalty they could not be told apart with confidence.
        found = LogisticRegression(C=100.0, max_iter=300).fit(embedding[fitted], label[fitted])
        shares = found.predict_proba(embedding[asked])
        column = np.searchsorted(found.classes_, label[asked]).clip(max=len(found.classes_) - 1)
        known = found.classes_[column] == label[asked]
        rows = np.arange(len(asked))
        own = np.where(known, shares[rows, column], 0.0)
        shares[rows[known], column[known]] = -1.0
        margin[asked] = (1 + shares.max(1) - own) / 2
    return margin

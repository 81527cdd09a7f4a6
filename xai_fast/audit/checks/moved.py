"""What the model makes of pictures that are moved by a few pixels: a label learned by heart it does not know there.

A network that is trained long enough gives every image its label, wrong ones, too, which it has learned for that one
picture (Zhang et al. 2017, "Understanding deep learning requires rethinking generalization", arXiv:1611.03530), and
puts it among the images of that label. Of the same picture a little to the side it says what it has learned in general.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cues import Picture
from .records import Floats, Records, unit
from .subject import Subject
from .thresholds import Thresholds

_SHARE = 1 / 16  # of the picture's sides
_MOVES = ((1, 1), (1, -1), (-1, 1), (-1, -1))
_PER_CALL = 64  # pictures that are held at once
_ALIKE = 0.99  # least cosine between what is stored of a picture and what is found again


@dataclass(frozen=True, eq=False)
class Moved:
    """Answers about moved pictures, of m images.

    Attributes:
        rows: (m,) of the records.
        fair: (m,) which of them were drawn, and not chosen for the doubt in their labels.
        probabilities: (m, K), the mean over the moves.
        embeddings: per move (m, D) of unit length, comparable with those of the records; empty where there are none.
    """

    rows: NDArray[np.integer]
    fair: NDArray[np.bool_]
    probabilities: Floats
    embeddings: tuple[Floats, ...]


def asked(records: Records, doubt: Floats, subject: Subject, limits: Thresholds) -> Moved:
    """Asks about every image with a doubt; of too many about those with the greatest, and as many that are drawn.

    Args:
        records: of the run.
        doubt: (n,) in labels, by what is stored; NaN of those that are not asked about.
        subject: its model and photographs; four rows forward per image.
        limits: `most_moved` says how many images.

    Raises:
        NoSubjectError, ValueError: the model gives no class scores, or no finite ones.
    """
    rows, fair = _chosen(doubt, limits.most_moved)
    layer = subject.layer if records.embedding is not None else None
    parts: list[tuple[NDArray[np.integer], Floats, list[Floats]]] = []
    for start in range(0, len(rows), _PER_CALL):
        own = rows[start : start + _PER_CALL]
        pictures = subject.pictures(records.position[own].tolist())
        own = np.array([row for row in own.tolist() if int(records.position[row]) in pictures], np.int64)
        if not len(own):
            continue
        plain = [pictures[int(records.position[row])] for row in own]
        if not parts and layer is not None and not _alike(subject.answers(plain, layer)[1], records, own):
            layer = None  # the layer is read otherwise than it was
        answers = [subject.answers([moved(one, *move) for one in plain], layer) for move in _MOVES]
        mean = np.mean([probabilities for probabilities, _ in answers], axis=0)
        parts.append((own, mean, [unit(embedding) for _, embedding in answers if embedding is not None]))
    if not parts:
        return Moved(np.empty(0, np.int64), np.empty(0, bool), np.empty((0, 0)), ())
    found, probabilities, embeddings = zip(*parts, strict=True)
    found = np.concatenate(found)
    by_move = tuple(np.concatenate(part) for part in zip(*embeddings, strict=True))
    return Moved(found, np.isin(found, rows[fair]), np.concatenate(probabilities), by_move)


def _chosen(doubt: Floats, most: int) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    rows = np.flatnonzero(np.isfinite(doubt))
    if len(rows) <= most:
        return rows, np.ones(len(rows), bool)
    drawn = np.random.default_rng(0).choice(rows, most // 2, replace=False)
    left = np.setdiff1d(rows, drawn)
    doubtful = left[np.argsort(-doubt[left], kind="stable")][: most - len(drawn)]
    rows = np.concatenate([drawn, doubtful])
    return rows, np.arange(len(rows)) < len(drawn)


def _alike(embedding: Floats | None, records: Records, rows: NDArray[np.integer]) -> bool:
    """Whether what is found of pictures that were not moved is what is stored of them."""
    assert records.embedding is not None
    if embedding is None:
        return False
    found, stored = unit(embedding), records.embedding[rows]
    return found.shape == stored.shape and bool(((found * stored).sum(1) >= _ALIKE).all())


def moved(picture: Picture, down: int, right: int) -> Picture:
    """A picture (h, w, 3) to the side by a sixteenth of each; what comes in is its border, repeated."""
    rows, columns = (
        np.clip(np.arange(extent) - step * max(round(extent * _SHARE), 1), 0, extent - 1)
        for extent, step in zip(picture.shape[:2], (down, right), strict=True)
    )
    return np.ascontiguousarray(picture[rows[:, None], columns])

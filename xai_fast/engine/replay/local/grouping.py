"""Which rows run together: those whose boxes have nearly one size in every layer, so that little runs for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xai_fast.graph.deadline import out_of_time

_MOST_KINDS = 320  # of rows, before kinds are compared pair by pair


def grouped(
    sizes: Sequence[np.ndarray], weights: np.ndarray, rows: np.ndarray, per_batch: float, batch: int
) -> list[np.ndarray]:
    """Boxes in groups.

    All rows of a group run with its largest size in every layer; a group runs in batches.

    Args:
        sizes: per axis, (B, V): how far each box extends in each of V layers.
        weights: (V,), the cost of one position of each layer.
        rows: (B,), how many rows have each box.
        per_batch: the cost of a batch beside that of its positions.
        batch: rows of a batch.

    Returns:
        Per group the numbers of its boxes, in order.
    """
    stacked = np.stack(sizes)  # (A, R, V)
    kinds, kind_of = np.unique(stacked.transpose(1, 0, 2).reshape(stacked.shape[1], -1), axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    counts = np.bincount(kind_of, weights=rows, minlength=len(kinds))
    extents = kinds.reshape(len(kinds), *np.delete(stacked.shape, 1)).astype(float)  # (kinds, A, V)
    label = np.arange(len(kinds))
    if len(kinds) > _MOST_KINDS:
        label = _coarse(extents, weights)
        extents = np.stack([extents[label == k].max(axis=0) for k in range(label.max() + 1)])
        counts = np.bincount(label, weights=counts)
    merged = _merged(extents, counts, weights, per_batch, batch)
    of_row = merged[label[kind_of]]
    return [np.flatnonzero(of_row == g) for g in np.unique(of_row)]


def _merged(extents: np.ndarray, counts: np.ndarray, weights: np.ndarray, per_batch: float, batch: int) -> np.ndarray:
    """Which group each kind ends in, merging the pair that saves most until none saves anything."""

    def cost(extents: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return counts * (extents.prod(axis=-2) @ weights) + per_batch * (1 + counts / batch)

    alive = np.ones(len(counts), dtype=bool)
    label = np.arange(len(counts))
    own = cost(extents, counts)
    extents, counts = extents.copy(), counts.copy()

    def saving(one: int) -> np.ndarray:
        together = cost(np.maximum(extents[one], extents), counts[one] + counts)
        found = own[one] + own - together
        found[~alive] = -np.inf
        found[one] = -np.inf
        return found

    savings = np.stack([saving(one) for one in range(len(counts))])
    while alive.sum() > 1 and not out_of_time():  # every division is right, and more groups only slower
        one, other = np.unravel_index(savings.argmax(), savings.shape)
        if savings[one, other] <= 0:
            break
        extents[one] = np.maximum(extents[one], extents[other])
        counts[one] += counts[other]
        alive[other] = False
        label[label == other] = one
        own[one] = cost(extents[one], counts[one])
        savings[other], savings[:, other] = -np.inf, -np.inf
        savings[one] = saving(int(one))
        savings[:, one] = savings[one]
    return label


def _coarse(extents: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A first division of very many kinds, by what they cost along each axis."""
    parts = int(_MOST_KINDS ** (1 / extents.shape[1]))
    label = np.zeros(len(extents), dtype=int)
    for axis in range(extents.shape[1]):
        along = extents[:, axis] @ weights
        edges = np.quantile(along, np.linspace(0, 1, parts + 1)[1:-1])
        label = label * parts + np.searchsorted(np.unique(edges), along, side="left")
    return np.unique(label, return_inverse=True)[1].reshape(-1)

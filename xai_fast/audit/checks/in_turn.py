"""Do images that follow one another in the list resemble each other more than any two of their class?

As pictures of one series, one patient or one day do: then images are fewer than they seem, and a split by place splits
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Floats, Records
from .statistics import holm
from .thresholds import Thresholds

NAME = "order of images"
QUESTION = "Within a class: are images that follow one another in the list more alike than others, as of one series?"


@dataclass(frozen=True)
class _Test:
    """A class, whose images are in the order of the list."""

    index: int
    rows: NDArray[np.integer]
    alike: Floats  # (n - 1,) how much each is like the next, as a correlation
    usual: float  # what few of two images at random go beyond
    p: float

    @property
    def effect(self) -> float:
        """Their mean."""
        return float(self.alike.mean())


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if records.embedding is not None else "the run has no embedding"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding, of the classes in which they are; a list that is sorted by class is no fault."""
    if records.embedding is None:
        return []
    known = np.where(records.label >= 0, records.label, records.target)
    usable = np.isfinite(records.embedding).all(1)
    tests = []
    for index in np.unique(known[usable]).tolist():
        rows = np.flatnonzero(usable & (known == index))
        if len(rows) >= 2 * limits.least_images:
            tests.append(_tested(index, rows, records.embedding[rows], limits))
    corrected = holm([test.p for test in tests]) if tests else []
    found = [
        (test, float(p))
        for test, p in zip(tests, corrected, strict=True)
        if p < limits.alpha and test.effect >= limits.in_turn
    ]
    found.sort(key=lambda pair: -pair[0].effect)
    return [_finding(records, found, len(tests))] if found else []


def _tested(index: int, rows: NDArray[np.integer], embedding: Floats, limits: Thresholds) -> _Test:
    """Of embeddings (n, D) in their order, without the mean of all.

    In a random order, products of two that follow one another have the mean of all pairs and, because they hardly
    depend on each other, the variance of one over their number.
    """
    from scipy.stats import norm

    rest = embedding.astype(np.float64) - embedding.mean(0, dtype=np.float64)
    count, size = len(rest), float(np.square(rest).sum(1).mean())
    if size == 0:
        return _Test(index, rows, np.zeros(count - 1), 0.0, 1.0)
    alike = (rest[1:] * rest[:-1]).sum(1) / size
    spread = rest.T @ rest / (count * size)
    beyond = (alike.mean() + 1 / (count - 1)) / np.sqrt(np.square(spread).sum() / (count - 1))
    mixed = rest[np.random.default_rng(0).permutation(count)]
    usual = float(np.quantile((mixed[1:] * mixed[:-1]).sum(1) / size, limits.tail))
    return _Test(index, rows, alike, usual, float(norm.sf(beyond)))


def _finding(records: Records, found: list[tuple[_Test, float]], tests: int) -> Finding:
    evidence: dict[str, object] = {"classes": f"{len(found)} of {tests}"}
    evidence |= {f"{records.name(test.index)}, correlation with the next": test.effect for test, _ in found[:6]}
    evidence["p (Holm), the largest"] = max(p for _, p in found)
    pairs = _pairs([test for test, _ in found])
    first = found[0][0]
    where = f"{len(found)} classes" if len(found) > 1 else records.name(first.index)
    return Finding(
        NAME,
        f"{where}: images that follow one another in the list are alike",
        "low",
        first.effect,
        evidence,
        tuple(records.position[list(pairs)].tolist()),
        tuple(pairs.values()),
        first.index if len(found) == 1 else None,
    )


def _pairs(found: list[_Test]) -> dict[int, float]:
    """Rows of pairs that are more alike than nearly all are at random, side by side, the most alike first."""
    parts = []
    for test in found:
        chosen = np.flatnonzero(test.alike > test.usual)
        parts.append((test.rows[chosen], test.rows[chosen + 1], test.alike[chosen]))
    rows, after, alike = (np.concatenate(part) for part in zip(*parts, strict=True))
    strongest: dict[int, float] = {}
    for place in np.argsort(-alike, kind="stable").tolist():
        for row in (int(rows[place]), int(after[place])):
            strongest.setdefault(row, float(alike[place]))
    return strongest

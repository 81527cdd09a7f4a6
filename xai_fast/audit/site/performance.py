"""How good the model is on the images of a run: by class, with intervals, and what it takes them for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xai_fast.audit.checks.records import Records


@dataclass(frozen=True)
class Line:
    """A class, or all.

    Attributes:
        name: of the class.
        images: that are labelled so and were predicted.
        right: of those.
        accuracy: in [0, 1].
        low: lower end of its 95 % interval.
        high: its upper end.
        taken_for: the commonest wrong answer, in words; "" where there is none.
    """

    name: str
    images: int
    right: int
    accuracy: float
    low: float
    high: float
    taken_for: str


def performance(records: Records) -> list[Line]:
    """All images first, then classes in their order; empty where no label is known."""
    judged = records.judged
    if not judged.any():
        return []
    lines = [_line("all", int(judged.sum()), int((judged & ~records.wrong).sum()), "")]
    for index in np.unique(records.label[judged]).tolist():
        own = judged & (records.label == index)
        wrong = records.prediction[own & records.wrong]
        taken = ""
        if len(wrong):
            values, counts = np.unique(wrong, return_counts=True)
            taken = f"{records.name(int(values[counts.argmax()]))} ({counts.max()})"
        lines.append(_line(records.name(index), int(own.sum()), int(own.sum()) - len(wrong), taken))
    return lines


def _line(name: str, images: int, right: int, taken_for: str) -> Line:
    from scipy.stats import binomtest

    interval = binomtest(right, images).proportion_ci(method="wilson")
    return Line(name, images, right, right / images, float(interval.low), float(interval.high), taken_for)

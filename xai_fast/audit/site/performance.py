"""How good the model is on the images of a run, by class, with intervals; and how often an audit itself is wrong."""

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


@dataclass(frozen=True)
class Alarms:
    """What audits of networks raised that were trained without a planted fault.

    Attributes:
        networks: how many, each on a seed that nothing was settled on.
        above_low: audits with a finding above "low".
        confirmed: audits with a confirmed finding.
    """

    networks: int
    above_low: int
    confirmed: int

    @property
    def most(self) -> float:
        """Upper end of the one-sided 95 % interval of the rate of audits with a finding above "low"."""
        from scipy.stats import binomtest

        tested = binomtest(self.above_low, self.networks, alternative="less")
        return float(tested.proportion_ci(0.95, method="exact").high)


FALSE_ALARMS = Alarms(20, 0, 0)
"""As `benchmarks/planted.py` counted them with all checks on; a test holds it against the record."""


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
    return Line(name, images, right, right / images, *interval(right, images), taken_for)


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, in [0, 1] (Wilson 1927); `count` is at least 1."""
    from scipy.stats import binomtest

    found = binomtest(hits, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)

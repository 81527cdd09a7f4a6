"""Which classes have hardly any images beside the others?"""

from __future__ import annotations

import numpy as np

from .finding import Finding
from .records import Records
from .thresholds import Thresholds

NAME = "class sizes"
QUESTION = "Which classes have hardly any images, so that little can be said of them and little was to be learned?"


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if (records.label >= 0).any() else "no image has a label"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding, of the classes that have less than a tenth of an even share."""
    classes, counts = np.unique(records.label[records.label >= 0], return_counts=True)
    if len(classes) < 2 or counts.sum() < limits.least_images:
        return []
    even = counts.sum() / len(classes)
    rare = np.flatnonzero(counts < limits.rare * even)
    if not len(rare):
        return []
    rare = rare[np.argsort(counts[rare], kind="stable")]
    few = {int(classes[place]): int(counts[place]) for place in rare}
    rows = np.concatenate([np.flatnonzero(records.label == index) for index in few])
    evidence: dict[str, object] = {"classes": len(few), "an even share": float(even)}
    evidence |= {f"of {records.name(index)}": count for index, count in list(few.items())[:8]}
    scores = tuple(1 - few[label] / even for label in records.label[rows].tolist())
    title = f"{len(few):,} of {len(classes):,} classes have less than {limits.rare:.0%} of an even share of the images"
    return [
        Finding(NAME, title, "low", float(scores[0]), evidence, tuple(records.position[rows].tolist()), scores, None)
    ]

"""Which pictures are dark, bright, empty, blurred, without colour, or of an odd size or shape, whatever their class?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .finding import Finding
from .records import Floats, Records
from .thresholds import Thresholds

NAME = "picture quality"
QUESTION = "Which pictures are dark, bright, next to empty, blurred, grey, or of an odd size or odd proportions?"

_Fault = tuple[NDArray[np.bool_], Floats]
"""(n,) who has it, and how much of it; the more the worse."""


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if records.looks is not None else "the run was begun before this was measured of pictures; run it anew"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """At most one finding per fault; what half of the images, or of a class, have is what they are, and no fault.

    They are "low": whether a class or its errors go with it is for the check "image properties" to say.
    """
    if lacking(records):
        return []
    faults = {**_of_size(records, limits), **_of_light(records, limits)}
    found = []
    for name, (has, much) in faults.items():
        has &= ~_usual(records, has, limits)
        if has.any():
            found.append(_finding(records, name, has, much))
    return found


def _usual(records: Records, has: NDArray[np.bool_], limits: Thresholds) -> NDArray[np.bool_]:
    """(n,) the images of classes of which so many have it; all images, where so many of the others have it."""
    known = np.where(records.label >= 0, records.label, records.target)
    values, place, counts = np.unique(known, return_inverse=True, return_counts=True)
    often = np.bincount(place, has, len(values)) / counts >= limits.usual
    usual = (often & (counts >= limits.least_images))[place]
    return usual | (bool((~usual).any()) and bool(has[~usual].mean() >= limits.usual))


def _of_light(records: Records, limits: Thresholds) -> dict[str, _Fault]:
    """What is wrong with the picture that the model sees; what is empty is not called blurred or grey, too."""
    looks = records.looks
    assert looks is not None
    contrast = records.numbers["contrast"]
    sharp = records.numbers["sharpness"] / contrast.clip(min=1e-6)
    empty = looks["entropy"] < limits.empty
    return {
        "next to empty": (empty, -looks["entropy"]),
        "dark": (looks["brightest"] < limits.dark, -looks["brightest"]),
        "bright": (looks["darkest"] > limits.bright, looks["darkest"]),
        "blurred": (~empty & (contrast >= limits.flat) & (sharp < limits.blurred), -sharp),
        "without colour": (~empty & (looks["colour"] < limits.grey), -looks["colour"]),
    }


def _of_size(records: Records, limits: Thresholds) -> dict[str, _Fault]:
    """What is odd about the file, before it was cut and resized."""
    width, height = records.numbers["width"], records.numbers["height"]
    aspect = np.minimum(width, height) / np.maximum(width, height)
    side = np.log(width * height) / 2
    low, middle, high = np.nanquantile(side, (0.25, 0.5, 0.75))
    ranges, factor = limits.odd_size
    room = ranges * (high - low)
    apart = np.abs(side - middle)
    odd = ((side > high + room) | (side < low - room)) & (apart >= np.log(factor))
    return {"of odd proportions": (aspect < limits.odd_aspect, -aspect), "of an odd size": (odd, apart)}


def _finding(records: Records, name: str, has: NDArray[np.bool_], much: Floats) -> Finding:
    rows = np.flatnonzero(has)
    rows = rows[np.argsort(-much[rows], kind="stable")]
    evidence: dict[str, object] = {"fault": name, "images": len(rows), "share of all images": len(rows) / len(records)}
    labels = records.label[rows]
    if (labels >= 0).any():
        values, counts = np.unique(labels[labels >= 0], return_counts=True)
        evidence["mostly"] = f"{records.name(int(values[counts.argmax()]))} ({counts.max()})"
    groups = {"wrong of them": has & records.judged, "wrong of the others": ~has & records.judged}
    evidence |= {said: float(records.wrong[group].mean()) for said, group in groups.items() if group.any()}
    title = f"{len(rows):,} {'picture is' if len(rows) == 1 else 'pictures are'} {name}"
    positions, scores = records.position[rows].tolist(), much[rows].tolist()
    return Finding(NAME, title, "low", len(rows) / len(records), evidence, tuple(positions), tuple(scores))

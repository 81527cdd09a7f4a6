"""What pushes a class's wrong answers away from the truth, where its right answers are not pushed: asked of the model.

Part of the check "errors": `ErrorAttribution` of some wrong and some right answers of each class that errs often.
What separates them is a region that can be taken out of held-out images and put into others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from xai_fast.audit.inputs import input_of
from xai_fast.methods.error_attribution import ErrorAttribution

from . import errors
from .cues import RegionCue
from .finding import Confirmation, Finding
from .records import Records
from .regions import REGIONS, Box, masses, shares
from .statistics import holm, rank_biserial
from .subject import Subject
from .thresholds import Thresholds

NAME = errors.NAME
_PER_CALL = 32
_PLACES: dict[str, Box] = {
    **REGIONS,
    "upper middle": Box(0, 1 / 3, 1 / 3, 2 / 3),
    "left middle": Box(1 / 3, 0, 2 / 3, 1 / 3),
    "middle": Box(1 / 3, 1 / 3, 2 / 3, 2 / 3),
    "right middle": Box(1 / 3, 2 / 3, 2 / 3, 1),
    "lower middle": Box(2 / 3, 1 / 3, 1, 2 / 3),
}


@dataclass(frozen=True)
class _Mistake:
    """A class that is taken for another often enough; rows of images, as many as are explained."""

    label: int
    taken_for: int
    wrong: NDArray[np.integer]
    right: NDArray[np.integer]


@dataclass(frozen=True)
class _Test:
    """A mistake and a place: whether what pushes towards the error lies there more than in right answers."""

    mistake: _Mistake
    place: str
    usual: float  # the median of right answers
    effect: float
    p: float


def found(records: Records, subject: Subject, limits: Thresholds) -> list[Finding]:
    """At most one finding per class: the place that separates its wrong answers from its right ones most.

    Args:
        records: of the run.
        subject: its model and photographs; asked about at most `limits.most_explained` images of a kind, of
            `limits.most_mistakes` classes, 52 rows forward and 50 backward each, from the deepest map on.
        limits: see there.

    Raises:
        ValueError, TypeError: `ErrorAttribution` does not apply to the model; says why.
    """
    tests: list[_Test] = []
    pushes: dict[int, Mapping[int, NDArray[np.floating]]] = {}
    for mistake in _mistakes(records, limits):
        mass = _pushes(records, subject, [*mistake.wrong.tolist(), *mistake.right.tolist()])
        pushes[mistake.label] = mass
        wrong, right = ([row for row in rows.tolist() if row in mass] for rows in (mistake.wrong, mistake.right))
        wrong = [row for row in wrong if not records.held_out[row]]
        if min(len(wrong), len(right)) < limits.least_images // 2:
            continue
        for place, name in enumerate(_PLACES):
            inside, outside = (np.array([mass[row][place] for row in rows]) for rows in (wrong, right))
            effect, p = rank_biserial(inside, outside)
            tests.append(_Test(mistake, name, float(np.median(outside)), effect, p))
    best: dict[int, tuple[_Test, float]] = {}
    for test, p in zip(tests, holm([test.p for test in tests]) if tests else (), strict=True):
        strong = p < limits.alpha and test.effect >= limits.property_effect
        key = test.mistake.label
        if strong and (key not in best or test.effect > best[key][0].effect):
            best[key] = (test, float(p))
    return [_finding(records, test, pushes[key], p, len(tests)) for key, (test, p) in best.items()]


def _mistakes(records: Records, limits: Thresholds) -> list[_Mistake]:
    """The classes that err most, each with what it is mostly taken for; right answers are never held out."""
    chosen = []
    random = np.random.default_rng(0)
    for label in np.unique(records.label[records.judged]).tolist():
        own = records.judged & (records.label == label)
        taken, counts = np.unique(records.prediction[own & records.wrong], return_counts=True)
        if not len(taken):
            continue
        other = int(taken[counts.argmax()])
        wrong = own & (records.prediction == other)
        seen, held = (np.flatnonzero(wrong & part) for part in (~records.held_out, records.held_out))
        right = np.flatnonzero(own & ~records.wrong & ~records.held_out)
        if min(len(seen), len(right)) < limits.least_images // 2:
            continue
        seen, held, right = (random.permutation(rows)[: limits.most_explained] for rows in (seen, held, right))
        chosen.append(_Mistake(label, other, np.sort(np.concatenate([seen, held])), np.sort(right)))
    return sorted(chosen, key=lambda one: -len(one.wrong))[: limits.most_mistakes]


def _pushes(records: Records, subject: Subject, rows: Sequence[int]) -> dict[int, NDArray[np.floating]]:
    """Of what pushes towards an error, the share in each of `_PLACES`, by row; those that can be read."""
    method = ErrorAttribution(subject.engine, kind="activation")
    pictures = subject.pictures(records.position[list(rows)].tolist())
    known = [row for row in rows if int(records.position[row]) in pictures]
    found: dict[int, NDArray[np.floating]] = {}
    for start in range(0, len(known), _PER_CALL):
        some = known[start : start + _PER_CALL]
        views = [input_of(pictures[int(records.position[row])], subject.engine.preprocess) for row in some]
        labels = torch.from_numpy(records.label[some])
        maps = method(torch.stack(views), target=labels, resolution="native").heatmap()
        spread = shares(maps.float().cpu().numpy())
        inside = masses(spread, list(_PLACES.values()))
        found |= {row: mass for row, mass in zip(some, inside, strict=True) if np.isfinite(mass).all()}
    return found


def _finding(records: Records, test: _Test, mass: Mapping[int, NDArray[np.floating]], p: float, tests: int) -> Finding:
    mistake, place = test.mistake, list(_PLACES).index(test.place)
    rows = [row for row in mistake.wrong.tolist() if row in mass and mass[row][place] > test.usual]
    rows.sort(key=lambda row: -float(mass[row][place]))
    name, other = records.name(mistake.label), records.name(mistake.taken_for)
    own = records.judged & (records.label == mistake.label)
    evidence = {
        "labelled": name,
        "taken for": other,
        "so wrong": int((own & (records.prediction == mistake.taken_for)).sum()),
        "explained": f"{len(mistake.wrong)} wrong, {len(mistake.right)} right",
        "place": test.place,
        "push per area where it is wrong": float(np.mean([mass[row][place] for row in rows]))
        / _PLACES[test.place].area,
        "push per area where it is right": test.usual / _PLACES[test.place].area,
        "rank-biserial correlation": test.effect,
        "p (Holm)": p,
        "tests": tests,
    }
    return Finding(
        NAME,
        f"{name} taken for {other}: what pushes towards the error lies at the {test.place}",
        "low",
        test.effect,
        evidence,
        tuple(int(records.position[row]) for row in rows),
        tuple(float(mass[row][place]) for row in rows),
        mistake.taken_for,  # the cue makes pictures look like what they are taken for
        RegionCue(_PLACES[test.place]),
        Confirmation("not tested"),
    )

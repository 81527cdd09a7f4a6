"""Records of a run that never was, whose truth is known: classes that look anywhere, and faults that are planted."""

from __future__ import annotations

import dataclasses

import numpy as np

from xai_fast.audit.checks.records import Records
from xai_fast.audit.checks.regions import REGIONS, masses, on_grid, shares

SIDE = 12
CORNER = "bottom right corner"


def maps(count, draws):
    """Blobs anywhere, as of an object that may be anywhere."""
    y, x = np.mgrid[:SIDE, :SIDE]
    centres = draws.uniform(1, SIDE - 1, (count, 2, 1, 1))
    return np.exp(-((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2) / 8)


def records(count=1200, classes=4, seed=0, *, marked=0.0, flipped=0.0, heat_of_mark=3.0, **changed):
    """Clean but for what is asked for.

    Args:
        count: of images.
        classes: of labels.
        seed: of all draws.
        marked: share of class 1 whose attribution lies in the corner.
        heat_of_mark: what attribution in the corner is added; a blob's is up to 1.
        flipped: share of labels that are exchanged.
        changed: fields of `Records` in place of what was made.

    Returns:
        (records, marked (n,), flipped (n,)).
    """
    draws = np.random.default_rng(seed)
    true = np.arange(count) % classes
    heat = maps(count, draws)
    stamped = (true == 1) & (draws.random(count) < marked)
    heat[stamped, -3:, -3:] += heat_of_mark
    exchanged = np.zeros(count, bool)
    exchanged[draws.permutation(count)[: round(flipped * count)]] = True
    label = np.where(exchanged, (true + draws.integers(1, classes, count)) % classes, true)
    centres = draws.standard_normal((classes, 16))
    embedding = (centres[true] + 0.3 * draws.standard_normal((count, 16))).astype(np.float32)
    sure = draws.uniform(0.85, 0.99, count)
    numbers = {
        "width": np.full(count, 40.0),
        "height": np.full(count, 30.0),
        "label": label.astype(float),
        "target": true.astype(float),
        "prediction": true.astype(float),
        "probability": sure,
        "margin": np.full(count, 3.0),
        "label_probability": np.where(exchanged, (1 - sure) / (classes - 1), sure),
        **{name: draws.normal(0.5, 0.1, count) for name in ("brightness", "contrast", "red", "green", "blue")},
        "sharpness": draws.normal(0.2, 0.05, count),
    }
    spread = shares(heat)
    made = Records(
        position=np.arange(count),
        numbers=numbers,
        groups={},
        regions=masses(spread, list(REGIONS.values())),
        grid=on_grid(spread),
        embedding=embedding / np.linalg.norm(embedding, axis=1, keepdims=True),
        classes=("ant", "bee", "cat", "dog", "eel", "fox")[:classes],
    )
    return dataclasses.replace(made, **changed), stamped, exchanged


def noise(made, seed=0, *, changed=0.0, of=1, everywhere=0.0, asked=0.5):
    """What noisy copies of records might have given.

    Args:
        made: the records.
        seed: of all draws.
        changed: share of one class whose maps become others.
        of: that class.
        everywhere: share of all images whose maps become others.
        asked: share of images that have a copy.

    Returns:
        (`noise` of Records, changed (n,)).
    """
    draws = np.random.default_rng(seed + 1000)
    other = ((made.target == of) & (draws.random(len(made)) < changed)) | (draws.random(len(made)) < everywhere)
    change = np.where(other, draws.uniform(0.6, 1.4, len(made)), draws.uniform(0.0, 0.3, len(made)))
    without = draws.random(len(made)) >= asked
    found = {"change": change, "rank": 1 - change / 2, "prediction": made.prediction.astype(float)}
    return {name: np.where(without, np.nan, values) for name, values in found.items()}, other & ~without


def masks(made, seed=0, *, outside=0.0, of=1, inside=0.7):
    """What masks might have given: areas from 0.1 to 0.5, and maps that lie in them, but for part of a class.

    Args:
        made: the records.
        seed: of all draws.
        outside: share of one class whose maps know nothing of the mask; 1.0 everywhere if `of` is None.
        of: that class.
        inside: how far maps lie inside, from chance (0) to wholly (1), on average.

    Returns:
        (`masks` of Records, outside (n,)).
    """
    draws = np.random.default_rng(seed + 2000)
    chosen = made.target == of if of is not None else np.ones(len(made), bool)
    elsewhere = chosen & (draws.random(len(made)) < outside)
    area = draws.uniform(0.1, 0.5, len(made))
    known = area + (1 - area) * draws.beta(8 * inside, 8 * (1 - inside), len(made))
    blind = area * draws.uniform(0, 2, len(made))  # by chance, on average
    within = np.where(elsewhere, blind, known)
    hit = draws.random(len(made)) < np.where(elsewhere, area, 0.9)
    return {"inside": within, "strongest": hit.astype(float), "area": area}, elsewhere


def auroc(scores, truth):
    """How well scores order the truth, in [0, 1]."""
    ranks = np.argsort(np.argsort(scores))
    positive = int(truth.sum())
    return (ranks[truth].sum() - positive * (positive - 1) / 2) / (positive * (len(truth) - positive))

"""Could a class be told by its metadata alone: a scanner, a site, a photographer that it hardly ever does without?"""

from __future__ import annotations

from typing import Any

import numpy as np

from .finding import Finding
from .records import Records
from .statistics import holm
from .thresholds import Thresholds

NAME = "metadata"
QUESTION = "Is a column of metadata tied to the label, so that a model could learn the one for the other?"


def lacking(records: Records) -> str:
    """Why there is nothing to look at; "" where there is."""
    return "" if records.groups else "the data have no column of metadata with few values"


def check(records: Records, limits: Thresholds) -> list[Finding]:
    """A finding per column that is tied to the label: what the model makes of it is for `errors` to say."""
    known = records.label >= 0
    tested = []
    for column, values in records.groups.items():
        table, names, classes = _counted(values[known], records.label[known])
        if min(table.shape) < 2 or table.sum() < limits.least_images:
            continue
        tested.append((column, table, names, classes, *_tied(table)))
    corrected = holm([one[-1] for one in tested]) if tested else []
    found = []
    for (column, table, names, classes, strength, _), p in zip(tested, corrected, strict=True):
        if p >= limits.alpha or strength < limits.tied:
            continue
        expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
        row, place = np.unravel_index(int(np.argmax((table - expected) / np.sqrt(expected))), table.shape)
        value, index = names[row], int(classes[place])
        chosen = np.flatnonzero(known & (records.groups[column] == value) & (records.label == index))
        share = float(table[row, place] / table[:, place].sum())
        evidence = {
            "column": column,
            "value": value or "nothing",
            "class": records.name(index),
            "share of the class": share,
            "share of the others": float(
                (table[row].sum() - table[row, place]) / (table.sum() - table[:, place].sum())
            ),
            "Cramér's V": strength,
            "p (Holm)": float(p),
        }
        title = f"{column} is tied to the label: {share:.0%} of {records.name(index)} have {value or 'nothing'}"
        positions = tuple(records.position[chosen].tolist())
        found.append(Finding(NAME, title, "low", strength, evidence, positions, (1.0,) * len(chosen), index))
    return found


def _counted(values: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
    """How often each value meets each class."""
    names = sorted(set(values.tolist()))
    classes = np.unique(label)
    table = np.zeros((len(names), len(classes)))
    rows = {name: n for n, name in enumerate(names)}
    np.add.at(table, (np.array([rows[value] for value in values.tolist()]), np.searchsorted(classes, label)), 1)
    return table, names, classes


def _tied(table: np.ndarray) -> tuple[float, float]:
    """Cramér's V in [0, 1], and the p-value of the chi-squared test."""
    from scipy.stats import chi2_contingency

    found: Any = chi2_contingency(table, correction=False)
    return float(np.sqrt(found.statistic / table.sum() / (min(table.shape) - 1))), float(found.pvalue)

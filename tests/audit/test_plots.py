"""Plots of the report: shares are counted, names are outlines, and without matplotlib the page says so."""

from __future__ import annotations

import dataclasses
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from made_records import records

from xai_fast.audit.site.plots import INKS, NAMES, confused, reliable, write_plots


def test_shares_of_answers_against_counting():
    made, *_ = records(300, flipped=0.2)
    classes, shares = confused(made)
    assert classes == [0, 1, 2, 3]
    for row, label in enumerate(classes):
        for column, answer in enumerate(classes):
            both = (made.label == label) & (made.prediction == answer)
            assert shares[row, column] == pytest.approx(both.sum() / (made.label == label).sum())
    np.testing.assert_allclose(shares.sum(1), 1)


def test_of_many_classes_those_are_shown_that_are_confused():
    made, *_ = records(1000)
    label = np.arange(1000) % 50
    prediction = np.where((label == 31) & (np.arange(1000) < 500), 7, label)
    numbers = {**made.numbers, "label": label.astype(float), "prediction": prediction.astype(float)}
    classes, shares = confused(dataclasses.replace(made, numbers=numbers))
    assert len(classes) == 16
    assert {7, 31} <= set(classes)
    assert shares[classes.index(31), classes.index(7)] == 0.5


def test_a_model_that_is_as_sure_as_it_is_right_lies_on_the_diagonal():
    draws = np.random.default_rng(0)
    made, *_ = records(8000)
    sure = draws.uniform(0.25, 1, 8000)
    right = draws.random(8000) < sure
    prediction = np.where(right, made.label, (made.label + 1) % 4).astype(float)
    told = reliable(dataclasses.replace(made, numbers={**made.numbers, "probability": sure, "prediction": prediction}))
    assert sum(count for *_, count in told) == 8000
    inside = [low <= mean <= high for mean, _, low, high, _ in told]
    assert sum(inside) >= len(inside) - 1
    (certain,) = reliable(dataclasses.replace(made, numbers={**made.numbers, "probability": np.ones(8000)}))
    assert certain[0] == 1.0
    assert certain[-1] == 8000


def test_names_are_outlines(tmp_path):
    """Formulas, ends of elements and letters that no font has are drawn, and nothing of them is text."""
    names = ("$\\frac{a}{", "</svg><script>alert(1)</script>", "\U000f0000猫" * 12, "\n\x1b[31m")
    made, *_ = records(200, flipped=0.1, classes=4)
    assert write_plots(dataclasses.replace(made, classes=names), tmp_path) == ""
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(f"{name}-{ink}.svg" for name in NAMES for ink in INKS)
    for file in tmp_path.iterdir():
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.parse(file).iter()}
        assert "path" in tags
        assert not tags & {"text", "script", "foreignObject", "image", "a"}


def test_the_same_records_give_the_same_bytes(tmp_path):
    made, *_ = records(200, flipped=0.1)
    for name in ("one", "two"):
        write_plots(made, tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_without_matplotlib_or_labels_the_reason_is_said(tmp_path, monkeypatch):
    made, *_ = records(60)
    blind = dataclasses.replace(made, numbers={**made.numbers, "label": np.full(60, np.nan)})
    assert "label" in write_plots(blind, tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'xai_fast[audit]'" in write_plots(made, tmp_path)
    assert list(tmp_path.iterdir()) == []

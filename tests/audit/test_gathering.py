"""Clusters of several classes that nothing confirmed are one finding; what is confirmed, or of one class, stays."""

from __future__ import annotations

import dataclasses

import pytest

from xai_fast.audit.checks import clusters
from xai_fast.audit.checks.cues import RegionCue
from xai_fast.audit.checks.finding import Confirmation, Finding
from xai_fast.audit.checks.gathering import gathered
from xai_fast.audit.checks.regions import REGIONS

CUE = RegionCue(REGIONS["top border"])


def looking(index, strength, state="not confirmed", note=""):
    evidence = {"class": f"class {index}", "images": 30, "place": "rows 0% to 15%", "attribution per area": 3.0}
    places = tuple(range(100 * index, 100 * index + 4))
    proof = Confirmation(state, (), note)
    return Finding(
        clusters.NAME, f"{index} looks", "low", strength, evidence, places, (0.9, 0.8, 0.7, 0.6), index, CUE, proof
    )


def erring(index, strength):
    evidence = {"class": f"class {index}", "images": 30, "errors": 0.4, "more than the rest": 0.3}
    return Finding(clusters.NAME, f"{index} errs", "low", strength, evidence, (100 * index + 50,), (1.0,), index)


def test_what_classes_have_in_common_is_said_once():
    found = gathered([looking(n, n) for n in range(1, 10)] + [erring(n, n) for n in range(1, 4)])
    assert [one.title for one in found] == [
        "9 classes: the model looks at one place in a group of images",
        "3 classes: a group of images is wrong more often than the rest of its class",
    ]
    first, second = found
    assert first.positions[:9] == tuple(100 * n for n in range(9, 0, -1))  # the clearest of each
    assert len(first.positions) == len(first.scores) == 36
    assert first.evidence["of class 9"].startswith("30 images, rows 0% to 15%")
    assert first.evidence["and"] == "3 more"
    assert "of class 1" not in first.evidence
    assert second.evidence["of class 3"] == "30 images, 40% wrong, +30%"
    for one in found:
        assert (one.severity, one.class_index, one.cue) == ("low", None, None)
    assert first.confirmation.state == "not confirmed"


def test_what_is_confirmed_or_alone_stays():
    proved = dataclasses.replace(looking(1, 1.0, "confirmed"), severity="high")
    other = Finding("shortcut", "another", "low", 1.0)
    alone = [looking(2, 1.0), erring(3, 1.0), looking(4, 1.0, "not tested", "too few")]
    assert gathered([proved, other, *alone]) == [proved, other, *alone]


@pytest.mark.parametrize("note", ["", "others are stronger"])
def test_reasons_are_kept_apart(note):
    found = gathered([looking(n, 1.0, "not tested", f"{note}{n % 2}") for n in range(4)])
    assert [one.confirmation.note for one in found] == [f"{note}0", f"{note}1"]
    assert [one.evidence["classes"] for one in found] == [2, 2]

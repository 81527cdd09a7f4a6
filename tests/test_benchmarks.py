"""The benchmark measures what it says, and every committed result holds its conditions."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in ("cases", "sides", "schema", "methods"):
        sys.modules.pop(name, None)


def test_committed_results_hold_their_conditions(module) -> None:
    files = sorted((BENCHMARKS / "results").glob("**/methods*.json"))
    assert files
    for file in files:
        module("schema").check(json.loads(file.read_text()))


def test_a_number_without_conditions_is_refused(module) -> None:
    with pytest.raises(ValueError, match="conditions"):
        module("schema").check({"records": [{"case": "x"}]})


def test_sides_measure_equal_maps(module) -> None:
    pytest.importorskip("captum")
    cases, sides = module("cases"), module("sides")
    case = cases.Case(
        "small", "resnet18", cases._occlusion(16, 16), "captum", cases._captum_occlusion(16, 16), sweep=(1, 4), size=64
    )
    result = sides.pairs(case, 2)
    assert set(result["seconds"]) == {"ours", "default", "best", "channels_last"}
    assert 0 < result["floor_fraction"] < 2
    assert 0 < result["outside_share"] < 1
    error = sides.error(case)
    assert error["ours"]["rms"] <= max(2.5 * error["peer"]["rms"], 1e-6)

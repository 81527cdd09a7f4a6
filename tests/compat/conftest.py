"""Where the tests of the methods keep their small networks; calls are served however little work they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xai_fast.compat import worth

sys.path.append(str(Path(__file__).parent.parent / "methods"))


@pytest.fixture(autouse=True)
def worth_it():
    """Every call is worth the engine, from the first row on."""
    with worth.always():
        yield


@pytest.fixture(autouse=True)
def inputs_stay_leaves():
    """Libraries that fail leave the inputs of their caller requiring gradients, which the next test is not about."""
    yield
    if (shared := sys.modules.get("explainers")) is not None:
        shared.INPUTS.requires_grad_(False).grad = None


@pytest.fixture
def rows_that_pay(monkeypatch):
    """From how many rows of light methods on a model is prepared; a call's work does not count."""

    def rows(number: int) -> None:
        for name, value in (("_always", 0), ("ROWS", number), ("CALL", 0.0), ("PREPARING", 0.0), ("FIRST", 0.0)):
            monkeypatch.setattr(worth, name, value)

    return rows

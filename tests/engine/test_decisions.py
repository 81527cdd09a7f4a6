"""What was timed is one record: given back, a run times nothing and repeats to the byte; slow plans are dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_store import network

import xai_fast as xf
from xai_fast.engine import precision
from xai_fast.engine.decisions import BATCH_SIZE, PLAN, RATES, Decisions
from xai_fast.engine.plan import RowBudget
from xai_fast.engine.replay.local import local
from xai_fast.engine.replay.local.pace import Pace


def methods(engine):
    return [xf.Occlusion(engine, window=4, stride=2), xf.Saliency(engine), xf.RISE(engine, n_masks=650, cells=4)]


def no_timing(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something is timed")

    monkeypatch.setattr(local, "timed", refuse)
    monkeypatch.setattr(precision, "_faster", refuse)
    monkeypatch.setattr("xai_fast.graph.fused.onednn.linear._fastest", refuse)
    monkeypatch.setattr(RowBudget, "measuring", property(lambda self: self.settled is None and refuse()))


def test_a_run_repeats_to_the_byte_without_timing(monkeypatch):
    x = torch.randn(2, 3, 32, 32)
    first = xf.Engine(network(), mode="fast")
    for _ in range(2):  # what the first call finds out, the second uses
        expected = [method.attribute(x, 1) for method in methods(first)]
    assert {BATCH_SIZE, RATES} <= first.decisions.entries.keys()
    text = first.decisions.to_json()
    no_timing(monkeypatch)
    second = xf.Engine(network(), mode="fast", decisions=Decisions.from_json(text))
    found = [method.attribute(x, 1) for method in methods(second)]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert second.decisions.given
    assert Decisions(second.decisions.entries).to_json() == text
    with pytest.raises(AssertionError, match="something is timed"):
        xf.RISE(xf.Engine(network()), n_masks=100).attribute(x, 1)


def test_an_empty_record_times_nothing_and_makes_all_decide_alike(monkeypatch):
    x = torch.randn(2, 3, 32, 32)
    no_timing(monkeypatch)
    monkeypatch.setattr("xai_fast.engine.plan.free_memory", lambda device: pytest.fail("asked what is free"))
    found = []
    for _ in range(2):
        engine = xf.Engine(network(), mode="fast", decisions=Decisions())
        found.append(([method.attribute(x, 1) for method in methods(engine)], engine.decisions.to_json()))
    assert all(torch.equal(one, other) for one, other in zip(found[0][0], found[1][0], strict=True))
    assert found[0][1] == found[1][1]
    monkeypatch.undo()
    truth = [method.attribute(x, 1) for method in methods(xf.Engine(network(), plan="dense", batch_size=2))]
    for one, other in zip(found[0][0], truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_what_is_given_is_neither_shared_nor_changed():
    model, x = network(), torch.randn(1, 3, 32, 32)
    plain = xf.Engine(model)
    xf.RISE(plain, n_masks=650).attribute(x, 1)
    given = plain.decisions
    before = given.to_json()
    engine = xf.Engine(model, decisions=given)
    xf.Occlusion(engine, window=4, stride=2).attribute(x, 1)
    assert given.to_json() == before
    assert engine.decisions is not given
    engine.refresh()
    assert engine.decisions.given


def test_explain_plan_prints_what_was_decided():
    engine, x = xf.Engine(network()), torch.randn(2, 3, 32, 32)
    method = xf.RISE(engine, n_masks=650)
    method.attribute(x, 1)
    (case,) = engine.decisions.entries[BATCH_SIZE]
    assert f"  {BATCH_SIZE}, {case}: " in engine.explain_plan(method, x)
    xf.RISE(engine, n_masks=10).attribute(torch.randn(1, 3, 40, 40), 1)
    assert "(3, 40, 40)" not in engine.explain_plan(method, x)


def test_a_plan_slower_than_its_estimate_is_dropped_and_says_so(monkeypatch):
    x = torch.randn(1, 3, 32, 32)
    engine, plain = xf.Engine(network()), xf.Engine(network(), plan="dense")
    monkeypatch.setattr(local, "_WORTH", np.inf)  # whatever it is estimated to cost
    monkeypatch.setattr("xai_fast.engine.replay.local.pace._SLOWER", 0.0)
    monkeypatch.setattr("xai_fast.engine.replay.local.pace._JUDGED_SECONDS", 0.0)
    monkeypatch.setattr(local, "_WHOLE_ROWS", {"cpu": 8, "cuda": 8})
    monkeypatch.setattr("xai_fast.engine.replay.local.cost.Costs.best", lambda self, rows: 2)
    method = xf.Occlusion(engine, window=4, stride=2)
    found = method.attribute(x, 1)
    torch.testing.assert_close(found, xf.Occlusion(plain, window=4, stride=2).attribute(x, 1), rtol=1e-4, atol=1e-5)
    assert PLAN in engine.decisions.entries, engine.explain_plan(method, x)
    words = engine.explain_plan(method, x)
    assert "turned out" in words
    assert "plan: dense" in words
    again = method.attribute(x, 1)
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-5)


def test_the_pace_needs_more_than_the_first_rows():
    told = []
    pace = Pace(1.0, told.append)
    assert not pace.too_slow(10, 1000.0)
    assert not pace.too_slow(10, 14.0)
    assert pace.too_slow(10, 17.0)
    assert "1.6 times" in told[0]


@pytest.mark.parametrize("text", ["{}", "[]", '{"version": 0, "entries": {}}', '{"version": 1, "entries": {"x": 1}}'])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="decisions"):
        Decisions.from_json(text)


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match="`decisions` came as dict"):
        xf.Engine(network(), decisions={})

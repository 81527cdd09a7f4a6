"""Mode "turbo": fewer evaluations, an error that is stated and true, and never more than was allowed."""

from __future__ import annotations

import itertools

import pytest
import torch
from games import PLAYERS, Game
from subjects import Small, signals
from test_rise import Bent, expectation

import xai_fast as xf
from xai_fast.engine.estimators.shapley_draws import weighted_draws

SEEDS = 100
ORDERS = {"n_permutations": 1000}


def crowd(on):
    """A game of 14 with interactions of every order, whose values differ in sign and size."""
    weights = torch.linspace(-1, 2, 14, dtype=torch.float64)
    three = (on[:, 0] & on[:, 4] & on[:, 6]).double()
    return torch.tanh(0.8 * (on.double() @ weights)) + three - 0.7 * (on[:, 2] & on[:, 5]).double()


def game(value, players=14, **engine):
    return xf.Engine(Game(value), **engine), torch.ones(1, 1, players, dtype=torch.float64), torch.arange(players)


def relative(error, values):
    """The share of each map's norm, one number per input."""
    return error.flatten(1).norm(dim=1) / values.flatten(1).norm(dim=1)


ESTIMATORS = [
    (xf.KernelShap, {"n_samples": 12_000, "sampler": "paired"}, 0.1),
    (xf.KernelShap, {"n_samples": 12_000, "sampler": "leverage"}, 0.05),
    (xf.KernelShap, {"n_samples": 12_000, "sampler": "kernel"}, 0.1),
    (xf.ShapleySampling, ORDERS, 0.1),
    (xf.ShapleySampling, ORDERS, 0.2),
    (xf.ShapleySampling, {**ORDERS, "sampler": "antithetic"}, 0.1),
]


@pytest.fixture(scope="module")
def exact():
    """The game's values, from all of its coalitions."""
    engine, one, segments = game(crowd, mode="turbo", batch_size=8192)
    found = xf.KernelShap(engine, segments=segments, n_samples=1 << 14, tolerance=1e-9)(one, 0)
    assert found.standard_error.abs().max() == 0
    return found


@pytest.mark.parametrize(("method", "settings", "tolerance"), ESTIMATORS, ids=str)
def test_where_coalitions_end_their_error_is_as_stated_and_within_the_tolerance(method, settings, tolerance, exact):
    engine, one, segments = game(crowd, mode="turbo", batch_size=8192)
    found = method(engine, segments=segments, tolerance=tolerance, **settings)(
        one.expand(SEEDS, *one.shape[1:]), 0, sample_ids=torch.arange(SEEDS)
    )
    error, stated = found.values - exact.values, found.standard_error
    assert 0.85 < error.square().mean().sqrt() / stated.square().mean().sqrt() < 1.15
    assert (relative(stated, found.values) <= tolerance).all()
    assert (relative(error, exact.values.expand_as(error)) <= 1.5 * tolerance).sum() >= 95
    assert found.evaluations.max() < (method(engine, segments=segments, **settings).cost((1, 14)).forwards) / 2
    assert found.completeness_gap.abs().max() < 1e-9
    assert error.mean(0).abs().max() < 6 * stated.square().mean().sqrt() / SEEDS**0.5, "stopping tilts the mean"


MASKED = [(xf.RISE, "bernoulli", 0.4), (xf.RISE, "stratified", 0.5), (xf.RISE, "antithetic", 0.5)]


@pytest.mark.parametrize(("method", "sampler", "keep"), [*MASKED, (xf.DRISE, "bernoulli", 0.5)])
@pytest.mark.parametrize("centred", [False, True], ids=["plain", "centred"])
def test_where_masks_end_their_error_is_as_stated_and_within_the_tolerance(centred, method, sampler, keep):
    space, cells, tolerance = (24,), 8, 0.2 if centred else 0.1
    model, x = Bent(space), signals(1, (1, *space), torch.float64)
    truth = expectation(model, x[0], cells, keep, 0, centred)
    engine = xf.Engine(model, mode="turbo", batch_size=4096)
    method = method(
        engine, n_masks=10_000, cells=cells, keep=keep, sampler=sampler, centred=centred, tolerance=tolerance
    )
    seeds = 300  # one in 40 maps is further off than 1.5 times the tolerance: of 100 maps it may well be six
    found = method(x.expand(seeds, *x.shape[1:]), 0, sample_ids=torch.arange(seeds))
    error, stated = found.values - truth, found.standard_error
    assert 0.85 < error.square().mean().sqrt() / stated.square().mean().sqrt() < 1.15
    assert (relative(stated, found.values) <= tolerance).all()
    assert (relative(error, truth.expand_as(error)) <= 1.5 * tolerance).sum() >= 0.95 * seeds
    assert found.evaluations.max() < 5_000


FEW = [
    (xf.KernelShap, {"n_samples": 500}),
    (xf.KernelShap, {"n_samples": 500, "sampler": "kernel"}),
    (xf.ShapleySampling, {"n_permutations": 40}),
    (xf.ShapleySampling, {"n_permutations": 40, "sampler": "antithetic"}),
    (xf.RISE, {"n_masks": 700, "cells": 3}),
    (xf.RISE, {"n_masks": 700, "cells": 3, "sampler": "antithetic", "centred": True}),
    (xf.DRISE, {"n_masks": 700, "cells": 4}),
]
every_estimator = pytest.mark.parametrize(("method", "settings"), FEW, ids=str)


def made(method, settings, model, **more):
    cells = {} if issubclass(method, xf.RISE | xf.DRISE) else {"segments": torch.arange(143) % 11}
    return method(model, **cells, **settings, **more)


def flat(n, **settings):
    return signals(n, (3, 143), torch.float64, **settings)


@every_estimator
def test_what_is_never_good_enough_is_what_the_other_modes_give(method, settings):
    """With all rows asked about the draws are those of mode "exact", so the map is."""
    model, inputs = Small(axes=1).double(), flat(3)
    exact = made(method, settings, xf.Engine(model))(inputs, 1)
    turbo = made(method, settings, xf.Engine(model, mode="turbo"), tolerance=1e-9)(inputs, 1)
    scale = exact.values.abs().max()
    torch.testing.assert_close(turbo.values, exact.values, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(turbo.standard_error, exact.standard_error, rtol=1e-6, atol=1e-12 * scale)
    assert turbo.evaluations.equal(exact.evaluations)


@every_estimator
def test_every_input_ends_on_its_own_and_as_it_would_alone(method, settings):
    model, inputs = Small(axes=1).double(), flat(3)
    inputs[1] *= 0.01  # nearly linear there, and soon known
    method = made(method, settings, xf.Engine(model, mode="turbo"), tolerance=0.3)
    together, ids = method(inputs, 1, sample_ids=torch.tensor([4, 5, 6])), torch.tensor([4, 5, 6])
    for n in range(3):
        alone = method(inputs[n : n + 1], 1, sample_ids=ids[n : n + 1])
        assert alone.evaluations.item() == together.evaluations[n]
        torch.testing.assert_close(alone.values[0], together.values[n], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(alone.standard_error[0], together.standard_error[n], rtol=1e-6, atol=1e-12)


@every_estimator
def test_the_last_of_several_targets_decides(method, settings):
    model, inputs = Small(axes=1).double(), flat(1)
    method = made(method, settings, xf.Engine(model, mode="turbo"), tolerance=0.25)
    several = method(inputs, torch.tensor([[0, 1, 4]]))
    alone = [method(inputs, target).evaluations.item() for target in (0, 1, 4)]
    assert several.evaluations.item() == max(alone)


def test_the_other_modes_take_no_notice_of_a_tolerance():
    model, inputs = Small(axes=1).double(), flat(1)
    for method, settings in FEW:
        loose, strict = (made(method, settings, model, tolerance=t)(inputs, 1) for t in (0.9, 0.001))
        assert loose.values.equal(strict.values)
        assert loose.evaluations.equal(strict.evaluations)


def test_a_map_of_zeros_is_not_taken_for_known():
    """What the score depends on may not have been drawn yet: here one coalition of a million."""
    engine, one, segments = game(lambda on: on[:, 9:].all(1) & ~on[:, :9].any(1), 20, mode="turbo")
    found = xf.ShapleySampling(engine, segments=segments, n_permutations=64, tolerance=0.9)(one, 0)
    assert found.values.abs().max() == found.standard_error.abs().max() == 0
    assert found.evaluations > 1000


def test_a_detection_that_comes_late_is_not_missed():
    def score(x):
        return (x.flatten(1).sum(1, keepdim=True) - 130).clamp_min(0)  # few masks leave so much

    one = torch.ones(1, 1, 143, dtype=torch.float64)
    settings = {"cells": 16, "seed": 3, "tolerance": 0.9}
    early = xf.DRISE(xf.Engine(score), n_masks=160, **settings)(one, 0)
    assert early.values.abs().max() == 0
    assert xf.DRISE(xf.Engine(score, mode="turbo"), n_masks=640, **settings)(one, 0).evaluations == 641


class Breaks(torch.nn.Module):
    """Answers NaN where a certain value is seen."""

    def __init__(self):
        super().__init__()
        self.inner = Small(axes=1).double()

    def forward(self, x):
        return torch.where((x[:, 0, 7] > 50)[:, None], torch.nan, self.inner(x))


@every_estimator
def test_a_broken_input_ends_and_the_others_go_on(method, settings):
    model, inputs = Breaks(), flat(3)
    expected = made(method, settings, xf.Engine(model, mode="turbo"), tolerance=0.3).attribute(inputs[:1], 1)
    inputs[1, 0, 7] = 99
    with pytest.raises(xf.NonFiniteError) as caught:
        made(method, settings, xf.Engine(model, mode="turbo"), tolerance=0.3).attribute(inputs, 1)
    assert caught.value.samples == [1]
    torch.testing.assert_close(caught.value.values[:1], expected, rtol=1e-9, atol=1e-12)
    assert caught.value.values[1].isnan().all()


def test_inputs_of_different_numbers_of_segments():
    """None, one, some that already are the baseline, and many."""
    engine = xf.Engine(Game(lambda on: on[:, :20].double().sum(1).tanh() + (on[:, 3] & on[:, 7])), mode="turbo")
    one, position = torch.ones(4, 1, 20, dtype=torch.float64), torch.arange(20)
    one[2, 0, 10:] = 0
    segments = torch.stack([position * 0 - 1, position * 0, position, position])
    for method in (xf.KernelShap(engine, segments=segments, n_samples=600, tolerance=0.05),
                   xf.ShapleySampling(engine, segments=segments, n_permutations=40, tolerance=0.05)):  # fmt: skip
        found = method(one, 0)
        assert found.values[0].abs().max() == 0
        assert found.evaluations[0] <= 2
        assert found.evaluations[1] <= 2
        # A regression on some coalitions lets who does nothing have a little.
        assert found.values[2, 0, 10:].abs().max() < (0.1 if isinstance(method, xf.KernelShap) else 1e-9)
        assert found.standard_error.isfinite().all()
        torch.testing.assert_close(
            found.values.sum((1, 2))[2:], found.score[2:] - engine.scores(one * 0, 0)[2:], rtol=0, atol=1e-9
        )


def test_draws_of_a_budget_are_the_first_of_the_next():
    for sampler in ("paired", "leverage", "kernel"):
        for n, budgets in ((11, (64, 128, 500)), (11, (64, 4096)), (40, (160, 320, 640))):
            draws = weighted_draws(n, budgets, sampler, 3, 5)
            (last,) = weighted_draws(n, budgets[-1:], sampler, 3, 5)
            assert {tuple(row) for row in draws[-1].shown.tolist()} == {tuple(row) for row in last.shown.tolist()}
            for smaller, larger in itertools.pairwise(draws):
                assert larger.shown[: len(smaller.shown)].equal(smaller.shown)
            for budget, some in zip(budgets, draws, strict=True):
                assert abs(len(some.shown) + 1 - min(budget, 1 << n)) <= n
                if sampler != "kernel" or budgets[-1] >= 1 << n:
                    mass = sum((n - 1) / (s * (n - s)) for s in range(1, n))
                    assert abs(some.weights.sum().item() / mass - 1) < 0.1


def test_progress_ends_with_what_was_run():
    seen = []
    engine, one, segments = game(
        crowd, mode="turbo", progress=lambda done, total: seen.append((done, total)), batch_size=50
    )
    found = xf.ShapleySampling(engine, segments=segments, n_permutations=400, tolerance=0.3)(one, 0)
    assert found.evaluations.item() < 2000
    assert seen[-1][0] == seen[-1][1] < 2000
    assert seen[0][1] > 2000


def test_the_plan_says_that_fewer_rows_may_run():
    engine, one, segments = game(crowd, mode="turbo")
    method = xf.ShapleySampling(engine, segments=segments, n_permutations=400)
    assert "fewer where an error is small enough" in engine.explain_plan(method, one)
    engine, one, segments = game(crowd)
    assert "fewer" not in engine.explain_plan(xf.ShapleySampling(engine, segments=segments), one)


@pytest.mark.parametrize(
    ("value", "error"),
    [("a tenth", TypeError), (None, TypeError), (True, TypeError), (0.0, ValueError), (1, ValueError)],
)
@every_estimator
def test_wrong_tolerances(method, settings, value, error):
    with pytest.raises(error, match=r"`tolerance` came as .*; give a number above 0 and below 1"):
        made(method, settings, Small(), tolerance=value)


def test_few_players_and_few_draws_run_at_once():
    for players in (0, 1, 2, 5):
        engine, one, _ = game(lambda on: on.sum(1), PLAYERS, mode="turbo")
        segments = torch.where(torch.arange(PLAYERS) < players, torch.arange(PLAYERS), -1)
        for method in (xf.KernelShap, xf.ShapleySampling):
            found = method(engine, segments=segments)(one, 0)
            expected = (segments >= 0).double()[None, None]
            torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-12)

"""KernelShap, ShapleySampling and Lime on games with known answers; errors as stated, and how they fall."""

from __future__ import annotations

import math

import pytest
import replicas_coalitions
import torch
from games import GAMES, PLAYERS, played, tanh_game

import xai_fast as xf
from xai_fast.engine.estimators.shapley_draws import weighted_draws


@pytest.mark.parametrize("sampler", ["paired", "kernel", "leverage"])
@pytest.mark.parametrize("name", GAMES)
def test_all_coalitions_give_the_shapley_values(name, sampler):
    value, expected = GAMES[name]
    found = played(value, xf.KernelShap, n_samples=256, sampler=sampler)
    wanted = torch.tensor([expected(i) for i in range(PLAYERS)], dtype=torch.float64)
    torch.testing.assert_close(found.values.flatten(), wanted, rtol=1e-9, atol=1e-9)
    assert found.standard_error.abs().max() < 1e-9
    assert found.evaluations.item() <= 256


@pytest.mark.parametrize("sampler", ["permutation", "antithetic"])
@pytest.mark.parametrize("name", GAMES)
def test_orders_come_near_the_shapley_values_and_keep_the_sum(name, sampler):
    value, expected = GAMES[name]
    found = played(value, xf.ShapleySampling, n_permutations=400, sampler=sampler)
    wanted = torch.tensor([expected(i) for i in range(PLAYERS)], dtype=torch.float64)
    assert (found.values.flatten() - wanted).abs().max() < 0.1
    assert found.completeness_gap.abs().max() < 1e-9
    if name == "additive":
        torch.testing.assert_close(found.values.flatten(), wanted, rtol=1e-12, atol=1e-12)
        assert found.standard_error.abs().max() < 1e-12


def test_what_two_players_do_to_each_other_cancels_between_an_order_and_its_reverse():
    found = played(GAMES["and"][0], xf.ShapleySampling, n_permutations=2, sampler="antithetic")
    torch.testing.assert_close(found.values.flatten()[[1, 3]], torch.full((2,), 0.5).double())


def test_lime_of_an_and():
    """With every coalition weighing the same, the best line through an AND of two is 1/2 for either."""
    found = played(GAMES["and"][0], xf.Lime, n_samples=20_000, baseline=0.0, kernel_width=100.0, alpha=0.0)
    wanted = torch.zeros(PLAYERS, dtype=torch.float64)
    wanted[[1, 3]] = 0.5
    assert (found.values.flatten() - wanted).abs().max() < 0.02
    assert abs(found.fit.item() - 2 / 3) < 0.02  # variances: 1/16 of 3/16 is left over
    additive = played(GAMES["additive"][0], xf.Lime, n_samples=50, baseline=0.0, alpha=0.0)
    torch.testing.assert_close(additive.fit, torch.ones(1, dtype=torch.float64))


SAMPLED = [
    (xf.KernelShap, {"n_samples": 60, "sampler": "paired"}, "n_samples"),
    (xf.KernelShap, {"n_samples": 60, "sampler": "leverage"}, "n_samples"),
    (xf.KernelShap, {"n_samples": 80, "sampler": "kernel"}, "n_samples"),
    (xf.ShapleySampling, {"n_permutations": 10}, "n_permutations"),
    (xf.ShapleySampling, {"n_permutations": 16, "sampler": "antithetic"}, "n_permutations"),
]


@pytest.mark.parametrize(("method", "settings", "count"), SAMPLED, ids=str)
def test_errors_are_as_large_as_stated_and_fall_with_the_root_of_the_number(method, settings, count):
    exact = played(tanh_game, xf.KernelShap, n_samples=256).values
    seeds = 100
    found = [played(tanh_game, method, **settings, seed=seed) for seed in range(seeds)]
    errors = torch.stack([one.values - exact for one in found])
    stated = torch.stack([one.standard_error for one in found])
    true = errors.square().mean().sqrt()
    assert 0.85 < true / stated.square().mean().sqrt() < 1.15
    assert errors.mean(0).abs().max() < 5 * true / math.sqrt(seeds)  # no bias beyond what 100 means leave
    if "n_permutations" in settings:  # coalitions of 8 players soon repeat: orders show the rate
        four = {**settings, count: 4 * settings[count]}
        more = torch.stack([played(tanh_game, method, **four, seed=1000 + seed).values - exact for seed in range(30)])
        assert 0.38 < more.square().mean().sqrt() / true < 0.65


def test_ten_segments_by_the_definition():
    table = torch.randn(1 << 10, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    powers = 2 ** torch.arange(10)
    players = torch.arange(10)
    method = xf.KernelShap(lambda x: table[(x[:, 0] > 0.5).long() @ powers][:, None], segments=players, n_samples=1024)
    found = method(torch.ones(1, 1, 10, dtype=torch.float64), 0)

    class Known:
        def __len__(self):
            return 10

        def __call__(self, shown):
            return table[sum(1 << player for player in shown)].item()

    wanted = torch.tensor(replicas_coalitions.shapley_values(Known()), dtype=torch.float64)
    torch.testing.assert_close(found.values.flatten(), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", ["paired", "kernel"])
def test_errors_of_the_regression_fall_with_the_root_of_the_number(sampler):
    """Thirty players, of whom triples win together: each of a triple gets a third."""
    triples = torch.randint(30, (25, 3), generator=torch.Generator().manual_seed(1))
    triples = triples[[len(set(triple)) == 3 for triple in triples.tolist()]]
    exact = torch.zeros(30, dtype=torch.float64).index_add_(
        0, triples.flatten(), torch.full((triples.numel(),), 1 / 3).double()
    )

    def scores(x):
        return (x[:, 0] > 0.5)[:, triples].all(2).double().sum(1, keepdim=True)

    def error(n_samples, seeds):
        settings = {"segments": torch.arange(30), "n_samples": n_samples, "sampler": sampler}
        ones = torch.ones(1, 1, 30, dtype=torch.float64)
        every = [xf.KernelShap(scores, **settings, seed=seed).attribute(ones, 0).flatten() for seed in seeds]
        return (torch.stack(every) - exact).square().mean().sqrt()

    assert 0.4 < error(1200, range(100, 120)) / error(300, range(40)) < 0.6


def test_draws_are_different_and_stand_for_all():
    for n, budget, sampler in (
        (9, 100, "paired"),
        (10, 300, "leverage"),
        (40, 200, "paired"),
        (1500, 3100, "leverage"),
    ):
        draws = weighted_draws(n, [budget], sampler, 3, 5)[0]
        assert len(draws.shown) <= budget - 1
        assert len(draws.shown.unique(dim=0)) == len(draws.shown)
        pairs = draws.shown[1:].view(-1, 2, n)
        assert (pairs[:, 0] ^ pairs[:, 1]).all()
        mass = sum((n - 1) / (s * (n - s)) for s in range(1, n))
        assert abs(draws.weights.sum().item() / mass - 1) < (0.3 if n > 100 else 1e-9)
        again = weighted_draws(n, [budget], sampler, 3, 5)[0]
        assert again.shown.equal(draws.shown)
        assert not weighted_draws(n, [budget], sampler, 4, 5)[0].shown.equal(draws.shown)

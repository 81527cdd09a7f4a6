"""The surrogates of Lime: ridge, lasso, selections, the draws of GLIME and what they converge to."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from games import PLAYERS, played, tanh_game

import xai_fast as xf
from xai_fast.engine.estimators.interactions import without_pairs
from xai_fast.engine.estimators.surrogate import Surrogate, _lasso_path
from xai_fast.engine.samplers.subsets import binomial, opposite_ends
from xai_fast.methods.lime import proximity


@pytest.mark.parametrize("top_k", [1, 3, 5])
@pytest.mark.parametrize("surrogate", ["ridge", "lasso"])
def test_top_k_keeps_the_segments_that_say_most(top_k, surrogate):
    value = torch.tensor([0.0, 5.0, -4.0, 0.5, 3.0, 0.1, -2.0, 1.0], dtype=torch.float64)
    found = played(lambda on: on.double() @ value, xf.Lime, n_samples=400, baseline=0.0, surrogate=surrogate,
                   top_k=top_k, alpha=1e-3)  # fmt: skip
    kept = found.values.flatten().nonzero()[:, 0].tolist()
    assert sorted(kept) == sorted(value.abs().argsort(descending=True)[:top_k].tolist())


def test_fewer_draws_than_segments_solve_the_same_ridge():
    generator = torch.Generator().manual_seed(2)
    shown = torch.rand(30, 45, generator=generator) < 0.5
    weights = torch.rand(30, generator=generator).double() + 0.1
    scores, clean = torch.randn(30, 3, generator=generator).double(), torch.zeros(3).double()
    few = Surrogate(shown, weights, "ridge", 0.7)(scores, clean)
    none_left = torch.zeros(20, 45, dtype=torch.bool)  # draws that weigh nothing, so that there are more than segments
    more = Surrogate(torch.cat([shown, none_left]), torch.cat([weights, torch.zeros(20).double()]), "ridge", 0.7)
    many = more(torch.cat([scores, torch.ones(20, 3).double()]), clean)
    torch.testing.assert_close(few.values, many.values, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(few.fit, many.fit, rtol=1e-9, atol=1e-11)


def test_each_target_has_a_selection_of_its_own():
    class Two(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 1] * 3 + x[:, 0, 2], x[:, 0, 5] * -2 + x[:, 0, 2]], dim=1)

    ones = torch.ones(1, 1, PLAYERS, dtype=torch.float64)
    method = xf.Lime(Two(), segments=torch.arange(PLAYERS), n_samples=200, baseline=0.0, top_k=1)
    values = method.attribute(ones, torch.tensor([[0, 1]]))[0, :, 0]
    assert [row.nonzero().item() for row in values] == [1, 5]


def test_a_lasso_of_many_segments_goes_to_its_penalty():
    """Of uncorrelated columns it is what is left of each value beyond the penalty."""
    count = 700
    cross = torch.linspace(-1, 1.3, count, dtype=torch.float64)  # no two of which are equally large
    path = _lasso_path(torch.eye(count, dtype=torch.float64), cross, 0.01, 20 * count + 100)
    expected = cross.sign() * (cross.abs() - 0.01).clamp_min(0)
    torch.testing.assert_close(path[:, -1], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_lasso_of_segments_that_do_the_same_goes_to_its_penalty(count):
    """Ties, as every coalition of a symmetric game has them: by the conditions of the optimum."""
    covariance = torch.full((5 * count, 5 * count), 0.05, dtype=torch.float64) + 0.2 * torch.eye(5 * count)
    cross = torch.tensor([0.7, -0.03, 0.2, -0.03, 0.0], dtype=torch.float64).repeat_interleave(count)
    found = _lasso_path(covariance, cross, 0.01, 20 * len(cross) + 100)[:, -1]
    slope = cross - covariance @ found
    torch.testing.assert_close(slope[found != 0], 0.01 * found[found != 0].sign(), rtol=0, atol=1e-8)
    assert slope.abs().max() < 0.01 + 1e-8
    assert found.count_nonzero() > 0


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"surrogate": "lasso"}, {"surrogate": "lasso", "top_k": 1}], ids=str
)
def test_glime_selects(settings):
    found = played(
        lambda on: 3.0 * on[:, 1] + 0.1 * (on[:, 2] & on[:, 4]), xf.Lime, sampler="glime", baseline=0.0, **settings
    )
    assert found.values.flatten().abs().argmax() == 1
    if "top_k" in settings:
        assert found.values.count_nonzero() == 1


def test_glime_has_the_limit_of_lime():
    limit = {"baseline": 0.0, "alpha": 0.0}
    lime = played(tanh_game, xf.Lime, n_samples=100_000, **limit).values
    glime = played(tanh_game, xf.Lime, n_samples=100_000, sampler="glime", **limit).values
    assert (lime - glime).abs().max() < 0.02 * lime.abs().max()


def test_glime_needs_no_more_draws_than_pairs_have_effects():
    """What pairs do is known exactly from few draws, so that only larger groups are left to chance."""

    def pairs(shown):
        a, b, c, d, e, f = shown.double().unbind(1)[:6]
        return a * b + 2 * c * d - a * e + f

    settings = {"baseline": 0.0, "alpha": 0.0, "sampler": "glime"}
    few = played(pairs, xf.Lime, n_samples=60, **settings)
    many = played(pairs, xf.Lime, n_samples=50_000, **settings)
    torch.testing.assert_close(few.values, many.values, rtol=1e-8, atol=1e-8)
    assert 0 < few.fit.item() < 1  # of the scores as they are, which are not linear


@pytest.mark.parametrize("n_samples", [12, 40, 160])
def test_what_pairs_do_is_believed_no_more_than_draws_tell(n_samples):
    """Scores of large groups alone: the estimate of pairs must not make the fit worse than it was."""
    n, errors = 9, {"as they are": 0.0, "without pairs": 0.0}
    chances = binomial(n, torch.arange(n + 1))
    for seed in range(40):
        shown = opposite_ends(seed, 0, n_samples, chances)
        signs = 1.0 - 2 * shown.double()
        scores = torch.stack([signs[:, :3].prod(1), signs.prod(1)], dim=1)  # whose linear part is 0 for fair coins
        for name, told in (("as they are", scores), ("without pairs", without_pairs(shown, scores, chances))):
            design = torch.cat([torch.ones(n_samples, 1, dtype=torch.float64), shown.double()], dim=1)
            errors[name] += torch.linalg.lstsq(design, told, driver="gelsd").solution[1:].square().sum().item()
    assert errors["without pairs"] < 1.1 * errors["as they are"]


def limit(alpha=0.0):
    """The coefficients (players,) of `tanh_game` over all coalitions, each weighing its proximity, by least squares."""
    every = torch.tensor(list(itertools.product((False, True), repeat=PLAYERS)))
    weights = proximity(every.sum(1), PLAYERS, 0.25)
    design = torch.cat([torch.ones(len(every), 1).double(), every.double()], dim=1)
    roots, scores = weights.sqrt()[:, None], tanh_game(every)[:, None]
    penalty = torch.eye(PLAYERS + 1, dtype=torch.float64)[1:] * math.sqrt(alpha)
    rows = torch.cat([design * roots, penalty]), torch.cat([scores * roots, torch.zeros(PLAYERS, 1).double()])
    return torch.linalg.lstsq(*rows).solution[1:, 0]


def test_errors_of_lime_fall_with_the_root_of_the_number():
    expected = limit()

    def error(n_samples, seeds):
        settings = {"baseline": 0.0, "alpha": 0.0, "n_samples": n_samples}
        found = [played(tanh_game, xf.Lime, **settings, seed=seed).values.flatten() for seed in seeds]
        return (torch.stack(found) - expected).square().mean().sqrt()

    assert 0.4 < error(2000, range(100, 120)) / error(500, range(40)) < 0.6


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_glime_of_few_segments_asks_about_every_coalition_once(alpha):
    settings = {"baseline": 0.0, "alpha": alpha, "n_samples": 512, "sampler": "glime"}
    found = played(tanh_game, xf.Lime, **settings)
    # The penalty of 512 samples, twice as many as there are coalitions.
    torch.testing.assert_close(found.values.flatten(), limit(alpha / 2), rtol=1e-9, atol=1e-10)
    assert found.evaluations.item() == 256


def test_glimes_draws_are_right_on_average():
    settings = {"baseline": 0.0, "alpha": 0.0, "n_samples": 120, "sampler": "glime"}
    found = torch.stack([played(tanh_game, xf.Lime, **settings, seed=seed).values.flatten() for seed in range(200)])
    errors = found - limit()
    assert (errors.mean(0).abs() < 5 * errors.std(0) / math.sqrt(len(errors))).all()

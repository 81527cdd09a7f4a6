"""Lime, KernelShap and ShapleySampling: games with known answers, the libraries on the same draws, errors as stated."""

from __future__ import annotations

import itertools
import math

import networks
import numpy as np
import pytest
import replicas_coalitions
import torch
from subjects import Small, signals

import xai_fast as xf
from xai_fast.core.baselines import resolve_baseline
from xai_fast.core.segments import SegmentMap
from xai_fast.engine import Recipe
from xai_fast.engine.reducers.coalitions import CoalitionValues, Stage
from xai_fast.engine.reducers.interactions import without_pairs
from xai_fast.engine.reducers.shapley import OrderMeans, ShapleyRegression
from xai_fast.engine.reducers.surrogate import Surrogate, _lasso_path
from xai_fast.engine.samplers.coalitions import Coalitions, Prefixes, Table
from xai_fast.engine.samplers.shapley_draws import WeightedDraws, weighted_draws
from xai_fast.engine.samplers.subsets import binomial, opposite_ends
from xai_fast.methods.lime import proximity

PLAYERS = 8


class Game(torch.nn.Module):
    """A score that is a function of which of its players' values are 1."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value(x[:, 0] > 0.5).double()[:, None]


def played(value, method, **settings):
    """The values (players,) of a game."""
    ones, segments = torch.ones(1, 1, PLAYERS, dtype=torch.float64), torch.arange(PLAYERS)
    return method(Game(value), segments=segments, **settings)(ones, 0)


GAMES = {
    "additive": (lambda on: (on * torch.arange(PLAYERS)).sum(1), lambda i: float(i)),
    "and": (lambda on: on[:, 1] & on[:, 3], lambda i: 0.5 * (i in (1, 3))),
    "xor": (lambda on: on[:, 1] ^ on[:, 3], lambda i: 0.0),
    "majority": (lambda on: on.sum(1) > PLAYERS / 2, lambda i: 1 / PLAYERS),
    "glove": (
        lambda on: torch.minimum(on[:, :1].sum(1), on[:, 1:3].sum(1)),
        lambda i: {0: 2 / 3, 1: 1 / 6, 2: 1 / 6}.get(i, 0.0),
    ),
}


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


def _tanh_game(on):
    """A game with interactions of every order."""
    weights = torch.linspace(-1, 1, PLAYERS, dtype=torch.float64)
    three = (on[:, 0] & on[:, 4] & on[:, 6]).double()
    return torch.tanh(2 * (on.double() @ weights)) + three - 0.7 * (on[:, 2] & on[:, 5]).double()


SAMPLED = [
    (xf.KernelShap, {"n_samples": 60, "sampler": "paired"}, "n_samples"),
    (xf.KernelShap, {"n_samples": 60, "sampler": "leverage"}, "n_samples"),
    (xf.KernelShap, {"n_samples": 80, "sampler": "kernel"}, "n_samples"),
    (xf.ShapleySampling, {"n_permutations": 10}, "n_permutations"),
    (xf.ShapleySampling, {"n_permutations": 16, "sampler": "antithetic"}, "n_permutations"),
]


@pytest.mark.parametrize(("method", "settings", "count"), SAMPLED, ids=str)
def test_errors_are_as_large_as_stated_and_fall_with_the_root_of_the_number(method, settings, count):
    exact = played(_tanh_game, xf.KernelShap, n_samples=256).values
    seeds = 100
    found = [played(_tanh_game, method, **settings, seed=seed) for seed in range(seeds)]
    errors = torch.stack([one.values - exact for one in found])
    stated = torch.stack([one.standard_error for one in found])
    true = errors.square().mean().sqrt()
    assert 0.85 < true / stated.square().mean().sqrt() < 1.15
    assert errors.mean(0).abs().max() < 5 * true / math.sqrt(seeds)  # no bias beyond what 100 means leave
    if "n_permutations" in settings:  # coalitions of 8 players soon repeat: orders show the rate
        four = {**settings, count: 4 * settings[count]}
        more = torch.stack([played(_tanh_game, method, **four, seed=1000 + seed).values - exact for seed in range(30)])
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


def test_errors_of_lime_fall_with_the_root_of_the_number():
    every = torch.tensor(list(itertools.product((False, True), repeat=PLAYERS)))
    weights = proximity(every.sum(1), PLAYERS, 0.25).sqrt()[:, None]
    design = torch.cat([torch.ones(len(every), 1).double(), every.double()], dim=1)
    limit = torch.linalg.lstsq(design * weights, _tanh_game(every)[:, None] * weights).solution[1:, 0]

    def error(n_samples, seeds):
        settings = {"baseline": 0.0, "alpha": 0.0, "n_samples": n_samples}
        found = [played(_tanh_game, xf.Lime, **settings, seed=seed).values.flatten() for seed in seeds]
        return (torch.stack(found) - limit).square().mean().sqrt()

    assert 0.4 < error(2000, range(100, 120)) / error(500, range(40)) < 0.6


def test_lime_of_a_xor():
    """No line says anything about it."""
    settings = {"n_samples": 20_000, "baseline": 0.0, "kernel_width": 100.0, "alpha": 0.0}
    for sampler in ("bernoulli", "glime"):
        assert played(GAMES["xor"][0], xf.Lime, sampler=sampler, **settings).values.abs().max() < 0.02


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


# The libraries, on the same draws.


def on_draws(model, inputs, target, labels, baseline, draws, estimator):
    def recipe_of(adopted):
        segments = SegmentMap.of(labels.expand(len(adopted), *labels.shape[-2:]))
        hidden = resolve_baseline(baseline, adopted, None, segments)
        coalitions = Coalitions(adopted, hidden, segments, draws)
        stages = [[Stage(int(count), estimator)] for count in draws.counts]
        return Recipe(variants=coalitions, reduce=CoalitionValues(segments, coalitions, draws.counts, stages))

    outcome, _ = xf.Engine(model).run(recipe_of, inputs, target)
    return outcome


def problem(size=64, cells=4):
    model, inputs = networks.awakened("resnet18").double(), networks.photos(1, size).double()
    place = torch.arange(size) * cells // size
    return model, inputs, place[:, None] * cells + place


def laid(labels, values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)[labels][None, None]


def test_lime_librarys_coefficients():
    lime_image = pytest.importorskip("lime.lime_image", reason="lime is not installed")
    model, inputs, labels = problem()
    n, count = int(labels.max()) + 1, 150

    def classify(batch):
        with torch.no_grad():
            return model(torch.from_numpy(batch).movedim(-1, 1)).softmax(1).numpy()

    explainer = lime_image.LimeImageExplainer(random_state=7)
    theirs = explainer.explain_instance(
        inputs[0].movedim(0, -1).numpy(), classify, labels=(3, 5), top_labels=None, num_samples=count,
        segmentation_fn=lambda _: labels.numpy(), random_seed=1,
    )  # fmt: skip
    shown = np.random.RandomState(7).randint(0, 2, count * n).reshape(count, n).astype(bool)
    shown[0] = True
    shown = torch.from_numpy(shown)
    weights = (-((1 - (shown.sum(1).double() / n).sqrt()) ** 2) / (2 * 0.25**2)).exp()
    probabilities = torch.nn.Sequential(model, torch.nn.Softmax(1))
    ours = on_draws(
        probabilities, inputs, torch.tensor([[3, 5]]), labels[None], "segment_mean",
        Table(shown, torch.tensor([count])), Surrogate(shown, weights, "ridge", 1.0),
    )  # fmt: skip
    for k, label in enumerate((3, 5)):
        expected = torch.zeros(n, dtype=torch.float64)
        for segment, weight in theirs.local_exp[label]:
            expected[segment] = float(weight)
        torch.testing.assert_close(ours.values[:, k], laid(labels, expected), rtol=1e-6, atol=1e-9)
    assert abs(ours.details.fit[0, 1].item() - theirs.score) < 1e-6  # it keeps the last label's


def caught(method, *args, **kwargs):
    """What captum's method returns, and the coalitions, scores and weights that it fitted."""
    fitted, fit = [], method.interpretable_model.fit

    def keep(train_data, **more):
        fitted.extend(torch.cat(column) for column in zip(*train_data, strict=True))
        return fit(train_data, **more)

    method.interpretable_model.fit = keep
    torch.manual_seed(11)
    found = method.attribute(*args, **kwargs)
    return found, fitted


def test_captums_kernel_shap():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    pytest.importorskip("sklearn", reason="captum fits by scikit-learn")
    model, inputs, labels = problem()
    theirs, (shown, _, _) = caught(
        attr.KernelShap(model), inputs, 0.0, 3, feature_mask=labels[None, None], n_samples=120
    )
    shown = torch.cat([torch.zeros(1, shown.shape[1], dtype=torch.bool), shown[2:].bool()])  # without the whole input
    weights = torch.ones(len(shown), dtype=torch.float64)
    weights[0] = 0
    zeros = torch.zeros(len(shown) - 1, dtype=torch.float64)
    draws = WeightedDraws(shown, weights, torch.arange(-1, len(shown) - 1), zeros.long(), zeros)
    ours = on_draws(
        model, inputs, 3, labels[None], 0.0, Table(shown, torch.tensor([len(shown)])), ShapleyRegression(draws)
    )
    scale = theirs.abs().max().item()  # theirs keeps the sum by two rows of weight 1e6
    torch.testing.assert_close(ours.values, theirs[:, :1].double(), rtol=0, atol=1e-4 * scale)


def test_captums_lime():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    pytest.importorskip("sklearn", reason="captum fits by scikit-learn")
    model, inputs, labels = problem()
    theirs, (shown, _, weights) = caught(
        attr.Lime(model), inputs, 0.0, 3, feature_mask=labels[None, None], n_samples=120
    )
    shown = shown.bool()
    ours = on_draws(
        model, inputs, 3, labels[None], 0.0, Table(shown, torch.tensor([len(shown)])),
        Surrogate(shown, weights.double(), "lasso", 0.01),
    )  # fmt: skip
    scale = theirs.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(ours.values, theirs[:, :1].double(), rtol=0, atol=2e-3 * scale)  # their descent's 1e-4


def test_captums_shapley_value_sampling():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, inputs, labels = problem()
    torch.manual_seed(11)
    theirs = attr.ShapleyValueSampling(model).attribute(
        inputs, 0.0, 3, feature_mask=labels[None, None], n_samples=5, perturbations_per_eval=4
    )
    torch.manual_seed(11)
    orders = torch.stack([torch.randperm(16) for _ in range(5)])
    ours = on_draws(model, inputs, 3, labels[None], 0.0, Prefixes((orders,)), OrderMeans(orders))
    torch.testing.assert_close(ours.values, theirs[:, :1].double(), rtol=1e-5, atol=1e-5)


# Surrogates.


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
    lime = played(_tanh_game, xf.Lime, n_samples=100_000, **limit).values
    glime = played(_tanh_game, xf.Lime, n_samples=100_000, sampler="glime", **limit).values
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


# Segments of every kind.

METHODS = [
    (xf.Lime, {"n_samples": 24, "baseline": 0.3}),
    (xf.KernelShap, {"n_samples": 40, "baseline": 0.3}),
    (xf.ShapleySampling, {"n_permutations": 2, "baseline": 0.3}),
]
methods = pytest.mark.parametrize(("method", "settings"), METHODS, ids=lambda x: getattr(x, "__name__", ""))


@methods
def test_no_segment_and_one_segment(method, settings):
    model, inputs = Small().double(), signals(2, dtype=torch.float64)
    none = method(model, segments=torch.full((13, 11), -1), **settings)(inputs, 1)
    assert none.values.eq(0).all()
    assert none.evaluations.tolist() == [1, 1]
    with torch.no_grad():
        drop = model(inputs)[:, 1] - model(torch.full_like(inputs, 0.3))[:, 1]
    more = {"alpha": 0.0} if method is xf.Lime else {}
    one = method(model, segments=torch.full((13, 11), 9), **settings, **more)(inputs, 1)
    torch.testing.assert_close(one.values, drop.view(2, 1, 1, 1).expand_as(one.values))
    assert one.evaluations.tolist() == [2, 2]


def test_names_and_one_channel():
    """Lime as its documentation calls it; superpixels of a grey picture; targets that name a class twice."""
    model, inputs = Small(), networks.photos(1, 48)
    found = xf.Lime(model, n_samples=30)(inputs)
    assert found.values.unique().numel() > 2
    grey = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, bias=False), model)
    for method in (xf.Lime(grey, segments="slic", n_samples=40), xf.ShapleySampling(grey, segments="slic")):
        assert method.attribute(inputs[:, :1]).std() > 0
    seven = xf.KernelShap(model, segments="grid", n_samples=140).attribute(
        inputs, torch.tensor([[0, 4, 1, 2, 3, 4, 0]])
    )
    assert seven.shape == (1, 7, 1, 48, 48)
    assert seven[:, 1].equal(seven[:, 5])


@methods
def test_every_input_may_have_segments_of_its_own_in_any_batch(method, settings):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    maps = torch.stack([torch.arange(143).view(13, 11) // size for size in (30, 15, 50)])
    maps[1, :2] = -7
    together = method(model, segments=maps, **settings).attribute(inputs, 1)
    for row in range(3):
        alone = method(model, segments=maps[row], **settings).attribute(inputs[row : row + 1], 1)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-10)
    assert together[1, 0, :2].eq(0).all()


@methods
def test_draws_belong_to_an_inputs_id(method, settings):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    made = method(model, segments="grid", **{**settings, "n_samples": 140} if "n_samples" in settings else settings)
    ids = torch.tensor([4, -9, 2**40])
    values = made.attribute(inputs, 1, sample_ids=ids)
    turned = made.attribute(inputs[[2, 0, 1]], 1, sample_ids=ids[[2, 0, 1]])
    torch.testing.assert_close(turned, values[[2, 0, 1]], rtol=1e-9, atol=1e-10)
    assert not torch.allclose(values, made.attribute(inputs, 1))


@methods
def test_segments_that_are_the_baseline_distinguish_no_coalitions(method, settings):
    model, inputs = Small().double(), signals(1, dtype=torch.float64)
    inputs[:, :, 6:] = 0.3
    labels = torch.arange(143).view(13, 11) // 11  # a segment per line
    found = method(model, segments=labels, **settings)(inputs, 1)
    of_all = method(model, segments=labels, **settings)(signals(1, dtype=torch.float64), 1)
    assert found.evaluations.item() < of_all.evaluations.item()
    if method is xf.ShapleySampling:
        torch.testing.assert_close(found.values[:, :, 6:], torch.zeros_like(found.values[:, :, 6:]))


def test_more_segments_than_16_bits_hold():
    inputs = torch.rand(1, 1, 190, 180, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(190 * 180).view(190, 180) * 3 + 5

    def model(x):
        return x.flatten(1).sum(1, keepdim=True)

    with pytest.raises(ValueError, match=r"`segments` are 34200; the regression .* takes at most 8192"):
        xf.KernelShap(model, segments=labels, n_samples=100).attribute(inputs, 0)
    small = xf.Engine(model, batch_size=512)
    lime = xf.Lime(small, segments=labels, n_samples=60, baseline=0.0)(inputs, 0)
    assert lime.values.std() > 0
    assert 0.9 < lime.fit.item() < 1
    with pytest.raises(ValueError, match="`segments` are 34200; the lasso"):
        xf.Lime(small, segments=labels, n_samples=60, baseline=0.0, top_k=5).attribute(inputs, 0)
    blocks = torch.arange(190)[:, None] // 20 * 40000 + torch.arange(180) // 30
    values = xf.ShapleySampling(small, segments=blocks, n_permutations=1).attribute(inputs, 0)
    total = torch.zeros(400000, dtype=torch.float64).index_add_(0, blocks.flatten(), inputs.flatten())
    torch.testing.assert_close(values[0, 0], total[blocks])


REFUSED = {
    "masks": (xf.Lime, {"segments": torch.ones(3, 13, 11, dtype=torch.bool)}, TypeError, "`segments` are masks"),
    "floats": (xf.Lime, {"segments": torch.ones(13, 11)}, TypeError, "`segments`"),
    "a name": (xf.KernelShap, {"segments": "squares"}, ValueError, "`segments` came as 'squares'"),
    "one sample": (xf.Lime, {"n_samples": 1}, ValueError, "`n_samples`"),
    "no width": (xf.Lime, {"kernel_width": 0}, ValueError, "`kernel_width`"),
    "a surrogate": (xf.Lime, {"surrogate": "tree"}, ValueError, "`surrogate` came as 'tree'"),
    "a negative penalty": (xf.Lime, {"alpha": -1.0}, ValueError, "`alpha`"),
    "none selected": (xf.Lime, {"top_k": 0}, ValueError, "`top_k`"),
    "a sampler": (xf.Lime, {"sampler": "kernel"}, ValueError, "`sampler`.*'glime'"),
    "a kernel's sampler": (xf.KernelShap, {"segments": "grid", "sampler": "glime"}, ValueError, "`sampler`"),
    "no orders": (xf.ShapleySampling, {"segments": "grid", "n_permutations": 0}, ValueError, "`n_permutations`"),
    "half a pair": (
        xf.ShapleySampling, {"segments": "grid", "n_permutations": 1, "sampler": "antithetic"}, ValueError,
        "`n_permutations` came as 1",
    ),
    "a seed": (xf.KernelShap, {"segments": "grid", "seed": -1}, ValueError, "`seed`"),
    "a baseline": (xf.KernelShap, {"segments": "grid", "baseline": "grey"}, ValueError, "`baseline`"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_settings(name):
    method, settings, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        method(Small(), **settings)


def test_too_few_samples_for_the_segments_are_refused_before_the_model_runs():
    model = Small()
    with pytest.raises(ValueError, match="`n_samples` came as 20, and 64 segments need at least 128"):
        xf.KernelShap(model, segments="grid", n_samples=20).attribute(signals(), 1)
    with pytest.raises(ValueError, match="needs pictures"):
        xf.Lime(model).attribute(signals(2, (4, 13, 11)), 1)
    assert model.record.rows == 0

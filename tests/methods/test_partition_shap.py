"""PartitionShap: Owen values exactly where the budget allows, efficient at every budget, and shap's own order."""

from __future__ import annotations

import warnings

import networks
import numpy as np
import pytest
import replicas_partition
import torch
from subjects import Small, signals
from torch import nn

import xai_fast as xf
from xai_fast.engine.samplers.partition import Differing, halves, splits_of

EVERYTHING = 10**6


class Uneven(nn.Module):
    """Products, a maximum and a square of positions, so that every context matters; scores are (rows, 3)."""

    def __init__(self, space, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3, torch.Size(space).numel(), generator=generator))
        self.form = nn.Parameter(torch.randn(3, *self.weight.shape[1:] * 2, generator=generator))

    def forward(self, x):
        flat = x.flatten(2).sum(1)
        products = torch.einsum("ni,kij,nj->nk", flat, self.form, flat)
        return (flat @ self.weight.T).relu() + products + flat.amax(1, keepdim=True) ** 2


def of(game):
    """A model that says one number of each row's positions (rows, M)."""
    return lambda x: game(x.flatten(1))[:, None]


@pytest.mark.parametrize("space", [(4, 4), (3, 5), (13,), (2, 3, 2)], ids=str)
def test_owen_values_by_recursion(space):
    model, inputs = Uneven(space).double(), signals(2, (2, *space), torch.float64)
    found = xf.PartitionShap(model, n_evaluations=EVERYTHING, baseline=0.3)(inputs, [2, 0])
    expected = replicas_partition.owen_maps(model, inputs, [2, 0], baseline=0.3)
    torch.testing.assert_close(found.values, expected, rtol=0.0, atol=1e-10)
    assert found.evaluations.tolist() == [2 + 2 * splits_of(space)] * 2


@pytest.mark.parametrize("space", [(2, 3), (5,), (1, 2, 3)], ids=str)
def test_owen_values_by_every_order_that_the_hierarchy_allows(space):
    model, inputs = Uneven(space).double(), signals(1, (1, *space), torch.float64)
    values = xf.PartitionShap(model, n_evaluations=EVERYTHING, baseline=0.0).attribute(inputs, 1)
    value = replicas_partition.game(model, inputs[0], torch.zeros_like(inputs[0]), 1)
    found = list(replicas_partition.orders(replicas_partition.places(space)))
    assert len(found) == 2 ** (torch.Size(space).numel() - 1)
    expected = torch.zeros_like(values)
    for order in found:
        for i, place in enumerate(order):
            expected[(0, 0, *place)] += (value(frozenset(order[: i + 1])) - value(frozenset(order[:i]))) / len(found)
    torch.testing.assert_close(values, expected, rtol=0.0, atol=1e-10)


def test_games_whose_values_are_known():
    ones = torch.ones(1, 1, 4)
    settings = {"n_evaluations": EVERYTHING, "baseline": 0.0}
    both = xf.PartitionShap(of(lambda x: x[:, 0] * x[:, 3]), **settings).attribute(ones, 0)
    assert both.flatten().tolist() == [0.5, 0.0, 0.0, 0.5]
    three = xf.PartitionShap(of(lambda x: x.prod(1)), **settings).attribute(ones[..., :3], 0)
    assert three.flatten().tolist() == [0.5, 0.25, 0.25]  # the halves are one position and two
    one_or_other = xf.PartitionShap(of(lambda x: (x[:, 1] + x[:, 2]) % 2), **settings).attribute(ones, 0)
    assert one_or_other.flatten().tolist() == [0.0] * 4
    within = xf.PartitionShap(of(lambda x: (x[:, 0] + x[:, 1]) % 2 + x[:, 3]), **settings).attribute(ones, 0)
    assert within.flatten().tolist() == [0.0, 0.0, 0.0, 1.0]


def test_the_first_budgets_by_hand():
    """Two rows say what all positions add; two more, what the halves do; odd ones have nothing to spend on."""
    x = torch.tensor([[[1.0, 2.0, 4.0, 8.0]]])
    model = of(lambda rows: rows.sum(1) + rows[:, 0] * rows[:, 3])  # 23 in all, 3 and 12 the halves alone
    maps = {n: xf.PartitionShap(model, n_evaluations=n, baseline=0.0)(x, 0) for n in (2, 3, 4, 5)}
    assert [found.evaluations.item() for found in maps.values()] == [2, 2, 4, 4]
    assert maps[2].values.flatten().tolist() == maps[3].values.flatten().tolist() == [5.75] * 4
    assert maps[4].values.flatten().tolist() == maps[5].values.flatten().tolist() == [3.5, 3.5, 8.0, 8.0]


@pytest.mark.parametrize("n_evaluations", [2, 3, 4, 7, 100, 500, 1001])
def test_efficiency_at_any_budget(n_evaluations):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    found = xf.PartitionShap(model, n_evaluations=n_evaluations, baseline=0.5)(inputs, [1, 3, 0])
    with torch.no_grad():
        difference = (model(inputs) - model(torch.full_like(inputs, 0.5)))[torch.arange(3), [1, 3, 0]]
    torch.testing.assert_close(found.values.flatten(1).sum(1), difference, rtol=1e-6, atol=1e-12)
    assert found.completeness_gap.abs().max() < 1e-12
    assert found.evaluations.tolist() == [n_evaluations - n_evaluations % 2] * 3


def test_more_evaluations_come_nearer():
    model, inputs = Uneven((6, 6)).double(), signals(2, (2, 6, 6), torch.float64)
    exact = replicas_partition.owen_maps(model, inputs, [0, 1], baseline=0.3)
    errors = [
        (xf.PartitionShap(model, n_evaluations=n, baseline=0.3).attribute(inputs, [0, 1]) - exact).norm().item()
        for n in (2, 30, 200, 700, EVERYTHING)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-10 < errors[-2] < 0.3 * errors[0]


def test_several_targets_are_those_one_by_one_where_all_is_split():
    model, inputs = Uneven((4, 5)).double(), signals(2, (2, 4, 5), torch.float64)
    method = xf.PartitionShap(model, n_evaluations=EVERYTHING)
    together = method(inputs, torch.tensor([[2, 0, 1], [1, 1, 0]]))
    assert together.values.shape == (2, 3, 1, 4, 5)
    assert together.completeness_gap.shape == (2, 3)
    for k, targets in enumerate(([2, 1], [0, 1], [1, 0])):
        torch.testing.assert_close(together.values[:, k], method.attribute(inputs, targets), rtol=0.0, atol=1e-10)


def test_several_targets_share_the_order_of_the_one_that_gains_most():
    """A thousand times a target decides alone, and the others come along."""
    model, inputs = Uneven((6, 6)).double(), signals(1, (2, 6, 6), torch.float64)
    with torch.no_grad():
        model.weight[1] *= 1000
        model.form[1] *= 1000
    method = xf.PartitionShap(model, n_evaluations=40, baseline=0.3)
    together = method.attribute(inputs, torch.tensor([[0, 1]]))
    torch.testing.assert_close(together[:, 1], method.attribute(inputs, 1), rtol=1e-12, atol=1e-9)
    assert (together[:, 0] - method.attribute(inputs, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("plan", ["dense", "auto"])
def test_inputs_have_queues_of_their_own(plan):
    model, inputs = Small().double(), signals(4, dtype=torch.float64)
    method = xf.PartitionShap(xf.Engine(model, plan=plan), n_evaluations=150, baseline=0.5)
    together = method.attribute(inputs, [1, 3, 0, 2])
    for n, target in enumerate([1, 3, 0, 2]):
        torch.testing.assert_close(together[n : n + 1], method.attribute(inputs[n : n + 1], target), rtol=1e-9, atol=0)


def test_what_already_is_the_baseline_costs_nothing():
    """Three positions of 64 differ: their Owen values are exact after the rows that a hierarchy of three has."""
    model, inputs = Uneven((8, 8)).double(), torch.full((2, 2, 8, 8), 0.5, dtype=torch.float64)
    for place in ((1, 2), (1, 3), (6, 7)):
        inputs[(0, slice(None), *place)] = 2.0
    found = xf.PartitionShap(model, n_evaluations=500, baseline=0.5)(inputs, 1)
    value = replicas_partition.game(model, inputs[0], torch.full_like(inputs[0], 0.5), 1)
    pair, alone = frozenset([(1, 2), (1, 3)]), frozenset([(6, 7)])
    expected = torch.zeros(1, 8, 8, dtype=torch.float64)
    expected[0, 6, 7] = (value(alone) - value(frozenset()) + value(pair | alone) - value(pair)) / 2
    for first, second in ((2, 3), (3, 2)):
        one, other = frozenset([(1, first)]), frozenset([(1, second)])
        for context in (frozenset(), alone, other, alone | other):
            expected[0, 1, first] += (value(context | one) - value(context)) / 4
    torch.testing.assert_close(found.values[0], expected, rtol=0.0, atol=1e-10)
    assert found.values[1].eq(0).all()
    assert found.evaluations.tolist() == [2 + 2 * 3, 2]


def test_boxes_that_add_the_same_come_in_an_order_of_the_seed():
    """All positions are alike, so that chance alone decides what is split: the same for a seed and an id."""
    inputs = torch.ones(2, 1, 8, 8)
    model = of(lambda x: x.sum(1) ** 3)

    def rows(seed, **call):
        seen = []
        xf.PartitionShap(lambda x: seen.append(x[-2:].clone()) or model(x), n_evaluations=30, baseline=0.0, seed=seed)(
            inputs[:1], 0, **call
        )
        return torch.cat(seen)

    world = torch.get_rng_state()
    assert rows(0).equal(rows(0))
    assert not rows(0).equal(rows(1))
    assert not rows(0).equal(rows(0, sample_ids=torch.tensor([7])))
    assert torch.get_rng_state().equal(world)


def test_halves_and_counts():
    assert halves(((0, 5), (2, 7))) == (((0, 2), (2, 7)), ((2, 5), (2, 7)))
    assert halves(((3, 4), (0, 3))) == (((3, 4), (0, 1)), ((3, 4), (1, 3)))
    assert halves(((3, 4), (1, 2))) is None
    assert [splits_of((n,)) for n in (1, 2, 3, 4)] == [0, 1, 3, 5]
    assert splits_of((224, 224)) > 224**4 / 4
    differing = Differing(np.eye(6, dtype=bool))
    assert differing.any_in(((2, 3), (2, 3)))
    assert not differing.any_in(((0, 3), (3, 6)))
    assert differing.narrowed(((0, 3), (2, 6))) == ((2, 3), (2, 3))


def test_a_score_that_is_not_a_number_ends_its_input_alone():
    inputs = signals(2, (1, 4, 4))
    inputs[0] += 100

    def model(x):
        total = x.flatten(1).sum(1, keepdim=True)
        return torch.where((total > 300) & (total < 1300), torch.nan, total)  # of the first input, some boxes

    method = xf.PartitionShap(model, n_evaluations=60, baseline=0.0)
    with pytest.raises(xf.NonFiniteError, match="sample 0") as caught:
        method.attribute(inputs, 0)
    assert caught.value.values[0].isnan().all()
    torch.testing.assert_close(caught.value.values[1:], method.attribute(inputs[1:], 0))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_evaluations": 1}, ValueError, "`n_evaluations` came as 1; give at least 2"),
        ({"n_evaluations": 10.0}, TypeError, "`n_evaluations` came as 10.0; give a whole number"),
        ({"baseline": "grey"}, ValueError, "`baseline` came as 'grey'"),
        ({"baseline": "segment_mean"}, ValueError, "`baseline` came as 'segment_mean'"),
        ({"seed": -1}, ValueError, "`seed` came as -1"),
        ({"seed": 0.5}, TypeError, "`seed` came as 0.5"),
    ],
    ids=str,
)
def test_wrong_settings(settings, error, message):
    model = Small()
    with pytest.raises(error, match=message):
        xf.PartitionShap(model, **settings)
    with pytest.raises(ValueError, match=r"`baseline` of shape \(2,\) does not fit"):
        xf.PartitionShap(model, baseline=(0.0, 1.0)).attribute(signals(1), 1)
    assert model.record.rows == 0


def ranks(values):
    """The rank of each value; equal ones, to nine digits, share theirs."""
    rounded = (values.flatten() / values.abs().max()).round(decimals=9)
    _, index, counts = rounded.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - counts / 2)[index]


@pytest.mark.parametrize(("side", "budget"), [(16, 60), (16, 400), (32, 500)])
def test_shaps_map_at_equal_evaluations(side, budget):
    """Shap one box at a time; without channels to tell apart the hierarchies are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shap = pytest.importorskip("shap", reason="shap is not installed")
    model = Small(channels=1).double()
    inputs = networks.photos(1, side).double().mean(1, keepdim=True)
    baseline = torch.full_like(inputs, 0.4)

    def predict(rows):
        with torch.no_grad():
            return model(torch.from_numpy(rows).movedim(-1, 1))[:, 1:2].numpy()

    masker = shap.maskers.Image(baseline[0].movedim(0, -1).numpy(), (side, side, 1))
    explainer = shap.PartitionExplainer(predict, masker)
    theirs = explainer(inputs.movedim(1, -1).numpy(), max_evals=budget, batch_size=2, silent=True).values[..., 0]
    found = xf.PartitionShap(model, n_evaluations=budget, baseline=0.4)(inputs, 1)
    assert found.evaluations.item() == 2 + explainer.last_eval_count == budget
    expected, ours = torch.from_numpy(theirs).movedim(-1, 1)[0], found.values[0]
    assert torch.corrcoef(torch.stack([ranks(ours), ranks(expected)]))[0, 1] > 0.99
    if budget < 120:  # one box at a time here too
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)

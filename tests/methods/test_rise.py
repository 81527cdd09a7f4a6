"""RISE and D-RISE: given masks, the distribution of drawn ones, stated errors against true ones, objects found."""

from __future__ import annotations

import itertools

import networks
import pytest
import replicas_masks
import torch
from fresh_memory import growth
from replicas_masks import enlarged
from subjects import Small, signals

import xai_fast as xf
from xai_fast.engine import Recipe
from xai_fast.engine.reducers.grids import GridMeans
from xai_fast.engine.samplers.grids import GROUPS, BehindGrids, GridDraws, radical_inverse
from xai_fast.ops import cell_extent

SAMPLERS = ("bernoulli", "stratified", "antithetic")
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
every_centring = pytest.mark.parametrize("centred", [False, True], ids=["plain", "centred"])


def drawn(count, space=(13, 11), cells=4, keep=0.5, sampler="bernoulli", seed=0, key=0):
    source = GridDraws(space, cells, keep, sampler, seed)
    grids, shifts = source(torch.full((count,), key), torch.arange(count))
    return source, grids, shifts


# Masks that are given


@every_centring
@pytest.mark.parametrize("several", [False, True], ids=["for all", "one set per input"])
@pytest.mark.parametrize("space", [(29,), (37, 53), (7, 8, 9)], ids=str)
def test_the_papers_sum_over_masks_that_are_given(space, several, centred):
    model, inputs = Small(axes=len(space), channels=1).double(), signals(2, (1, *space), torch.float64)
    generator = torch.Generator().manual_seed(4)
    before = (2, 30) if several else (30,)
    grids = torch.rand(*before, *[4] * len(space), generator=generator) < 0.6
    shifts = torch.stack([torch.randint(cell_extent(n, 4), before, generator=generator) for n in space], dim=-1)

    def recipe(adopted):
        source, ids = GridDraws(space, 4, 0.6, "bernoulli", 0), torch.zeros(2, dtype=torch.long)
        variants = BehindGrids(adopted, torch.tensor(0.3).to(adopted), 30, source, ids, (grids, shifts))
        return Recipe(variants=variants, reduce=GridMeans(variants, centred=centred))

    values = xf.Engine(model, batch_size=7).run(recipe, inputs, [1, 3])[0].values
    for n, target in enumerate([1, 3]):
        own = (grids[n], shifts[n].tolist()) if several else (grids, shifts.tolist())
        masks = [enlarged(grid.numpy() * 1.0, shift, space) for grid, shift in zip(*own, strict=True)]
        expected = replicas_masks.weighted(model, inputs[n], target, masks, torch.tensor(0.3), centred) / 0.6
        torch.testing.assert_close(values[n], expected, rtol=1e-10, atol=1e-12)


# Masks that are drawn


@pytest.mark.parametrize("keep", [0.5, 0.2])
@every_sampler
def test_cells_are_kept_with_their_probability_and_shifts_are_even(sampler, keep):
    if sampler == "antithetic" and keep != 0.5:
        pytest.skip("half are kept")
    source, grids, shifts = drawn(4000, keep=keep, sampler=sampler)
    spread = (keep * (1 - keep) / 4000) ** 0.5
    share = grids.double().mean(0)
    assert (share - keep).abs().max() < (1e-12 if sampler == "antithetic" else 4 * spread)
    flat = grids.flatten(1).double() - keep
    together = flat.T @ flat / 4000 - keep * (1 - keep) * torch.eye(16)
    assert together.abs().max() < 5 * 4000**-0.5 * max(keep * (1 - keep), 0.25)
    assert source.positions == (4, 3)
    for axis, extent in enumerate(source.positions):
        found = torch.bincount(shifts[:, axis], minlength=extent) / 4000
        assert len(found) == extent
        assert (found - 1 / extent).abs().max() < (0.05 if sampler == "antithetic" else 0.03)


def test_opposites_share_their_shift():
    _, grids, shifts = drawn(61, sampler="antithetic")
    assert grids[:60:2].equal(~grids[1::2])
    assert shifts[:60:2].equal(shifts[1::2])
    _, alone, _ = drawn(61)
    assert grids[::2].equal(alone[::2])
    assert len(grids[::2].flatten(1).unique(dim=0)) > 25


@pytest.mark.parametrize("keep", [0.5, 0.1])
def test_numbers_of_cells_are_spread_evenly_in_any_stretch(keep):
    """Of every group's first j draws, as many keep at most k cells as the binomial distribution has it, or nearly."""
    source, grids, _ = drawn(40 * GROUPS, keep=keep, sampler="stratified")
    counts = grids.flatten(1).sum(1)
    expected = torch.distributions.Binomial(16, torch.tensor(keep)).log_prob(torch.arange(17.0)).exp().cumsum(0)
    draw, plain = torch.arange(len(counts)), drawn(len(counts), keep=keep)[1].flatten(1).sum(1)

    def furthest(counts, first):
        """From the distribution, of the first draws of any group."""
        own = torch.stack([counts[source.group_of(draw) == group][:first] for group in range(GROUPS)])
        return ((own[..., None] <= torch.arange(17)).double().mean(1) - expected).abs().max()

    for first in (8, 16, 40):
        assert furthest(counts, first) < 2 / first < furthest(plain, first)
    assert len(grids.flatten(1).unique(dim=0)) > (600 if keep == 0.5 else 150)


def test_the_sequence_halves_what_is_left():
    assert radical_inverse(torch.arange(8)).tolist() == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


@every_sampler
def test_a_draw_does_not_depend_on_how_many_there_are(sampler):
    source, grids, shifts = drawn(300, sampler=sampler, key=-7)
    some = torch.tensor([299, 3, 2, 150])
    again, moved = source(torch.full((4,), -7), some)
    assert again.equal(grids[some])
    assert moved.equal(shifts[some])


def test_many_cells_are_drawn_part_by_part(monkeypatch):
    model, inputs = Small(axes=3).double(), signals(2, (3, 9, 7, 8), torch.float64)
    expected = xf.DRISE(model, n_masks=9).attribute(inputs, 1)
    for name, value in (("_AT_ONCE", 4 * 4096), ("_KEPT", 1)):
        monkeypatch.setattr(f"xai_fast.engine.samplers.grids.{name}", value)
    assert xf.DRISE(model, n_masks=9).attribute(inputs, 1).equal(expected)


def test_targets_are_worked_on_part_by_part(monkeypatch):
    model, inputs = Small().double(), signals(2, dtype=torch.float64)
    wanted = torch.tensor([[0, 1, 4], [2, 2, 3]])
    expected = xf.RISE(model, n_masks=50)(inputs, wanted)
    monkeypatch.setattr("xai_fast.engine.reducers.grids._AT_ONCE", 1)
    again = xf.RISE(model, n_masks=50)(inputs, wanted)
    torch.testing.assert_close(again.values, expected.values, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(again.standard_error, expected.standard_error, rtol=1e-8, atol=1e-12)


# Stated errors


class Bent(torch.nn.Module):
    """Two scores that are not linear in the input, one of them far from 0."""

    def __init__(self, space):
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.weight = torch.randn(2, *space, generator=generator, dtype=torch.float64)

    def forward(self, x):
        flat = torch.einsum("n...,k...->nk", x[:, 0], self.weight)
        return flat.tanh() + 0.2 * flat + torch.tensor([0.0, 3.0], dtype=x.dtype)


def expectation(model, x, cells, keep, target, centred):
    """The mean over all grids and shifts, each by its probability: (*space)."""
    space = tuple(x.shape[1:])
    masks, weights = [], []
    for bits in itertools.product((0.0, 1.0), repeat=cells ** len(space)):
        for shift in itertools.product(*[range(-(-n // cells)) for n in space]):
            grid = torch.tensor(bits).view([cells] * len(space)).numpy()
            masks.append(enlarged(grid.astype(float), shift, space))
            weights.append(keep ** sum(bits) * (1 - keep) ** (len(bits) - sum(bits)))
    masks, weights = torch.stack(masks), torch.tensor(weights, dtype=torch.float64)
    weights = weights / weights.sum()
    scores = model(masks[:, None] * x)[:, target]
    if centred:
        scores = scores - weights @ scores
    return torch.einsum("m,m...->...", weights * scores, masks) / keep


@every_centring
@pytest.mark.parametrize(
    ("sampler", "keep"), [("bernoulli", 0.5), ("bernoulli", 0.3), ("stratified", 0.5), ("antithetic", 0.5)]
)
@pytest.mark.parametrize(("space", "cells"), [((12,), 3), ((6, 5), 2)], ids=["signal", "image"])
def test_stated_errors_are_true_ones(space, cells, sampler, keep, centred):
    """Over a hundred independent maps, of the same input under a hundred ids."""
    model, x = Bent(space), signals(1, (1, *space), torch.float64)
    engine = xf.Engine(model, batch_size=4096)
    method = xf.RISE(engine, n_masks=240, cells=cells, keep=keep, sampler=sampler, centred=centred)
    inputs = x.expand(100, *x.shape[1:])
    found = method(inputs, torch.tensor([[0, 1]] * 100), sample_ids=torch.arange(100))
    for target in (0, 1):
        truth = expectation(model, x[0], cells, keep, target, centred)
        error = found.values[:, target, 0] - truth
        true, stated = (values.square().mean().sqrt() for values in (error, found.standard_error[:, target, 0]))
        assert 0.85 < true / stated < 1.15
        assert error.mean(0).abs().max() < 5 * true / 10, "the mean of a hundred maps is off"


def test_an_error_needs_two_draws_of_every_group():
    model, inputs = Small(), signals(2)
    for sampler, least in (("bernoulli", 40), ("stratified", 40), ("antithetic", 80)):
        assert xf.RISE(model, n_masks=least - 1, sampler=sampler)(inputs, 1).standard_error is None
        found = xf.RISE(model, n_masks=least, sampler=sampler)(inputs, 1)
        assert found.standard_error.shape == found.values.shape
        assert (found.standard_error > 0).all()


def test_errors_too_many_to_keep_are_left_out(monkeypatch):
    monkeypatch.setattr("xai_fast.engine.reducers.grids._MOST_ERRORS", 2 * 143)
    found = xf.RISE(Small(), n_masks=40)(signals(2), 1)
    assert found.standard_error.shape == found.values.shape
    assert xf.RISE(Small(), n_masks=40)(signals(3), 1).standard_error is None


def test_what_centring_and_opposites_save():
    """Of a score far from 0 a plain map is mostly how often a position was seen."""
    model, inputs = Bent((12, 12)), signals(1, (1, 12, 12), torch.float64)

    def error(**settings):
        return xf.RISE(model, n_masks=400, **settings)(inputs, 1).standard_error.mean()

    assert error(centred=True) < 0.5 * error()
    assert error(sampler="antithetic") < 0.5 * error()
    assert error(sampler="antithetic", centred=True) > error(centred=True), "both remove the same error"


# What is found


class Patch(torch.nn.Module):
    """How bright one corner of an image is."""

    def forward(self, x):
        return x[..., 4:12, 20:30].mean((1, 2, 3))[:, None].clamp(0, 1)


@every_sampler
@every_centring
def test_the_map_peaks_where_the_score_comes_from(sampler, centred):
    inputs = torch.full((1, 3, 36, 40), 0.8)
    values = xf.RISE(Patch(), n_masks=1000, sampler=sampler, centred=centred).attribute(inputs, 0)[0, 0]
    row, column = divmod(int(values.argmax()), 40)
    assert 4 <= row < 12
    assert 20 <= column < 30
    if centred:
        assert values[4:12, 20:30].min() > 3 * values[20:].abs().max()
    else:
        assert values.min() > 0.3
        assert 0.3 < values[20:].mean() < 0.5  # half of 0.8, whatever is seen there


class Spotter(torch.nn.Module):
    """Finds two things where they always are, the surer the brighter they are, and a third of no class asked for."""

    places = torch.tensor([[4.0, 6.0, 20.0, 22.0], [34.0, 28.0, 46.0, 44.0], [0.0, 30.0, 20.0, 48.0]])

    def forward(self, x):
        found = []
        for row in x:
            boxes = self.places.to(row)
            scores = [row[:, y1:y2, x1:x2].mean() for x1, y1, x2, y2 in self.places.int().tolist()]
            found.append({"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "scores": torch.stack(scores).clamp(0, 1)})
        return found


@pytest.mark.parametrize("centred", [False, True])
def test_an_object_is_seen_where_it_is(centred):
    inputs = torch.full((2, 3, 48, 50), 0.9)
    target = xf.targets.detection(Spotter.places[:2] + 1, [1, 2])
    found = xf.DRISE(Spotter(), n_masks=800, cells=8, centred=centred)(inputs, target)
    for values, (x1, y1, x2, y2) in zip(found.values[:, 0], Spotter.places.int().tolist(), strict=False):
        row, column = divmod(int(values.argmax()), 50)
        assert y1 <= row < y2
        assert x1 <= column < x2
        inside = torch.zeros_like(values, dtype=torch.bool)
        inside[y1:y2, x1:x2] = True
        assert values[inside].mean() - values[~inside].mean() > (10 if centred else 3) * found.standard_error.mean()
    assert found.evaluations.tolist() == [801, 801]
    assert (found.values >= 0).all() != centred


def test_a_torchvision_detector():
    settings = {"num_classes": 5, "min_size": 64, "max_size": 96, "box_score_thresh": 0.0}
    few = {"rpn_post_nms_top_n_test": 20, "box_detections_per_img": 10}
    detector = networks.awakened("fasterrcnn_mobilenet_v3_large_320_fpn", weights_backbone=None, **settings, **few)
    inputs = networks.photos(2, 64)
    with torch.no_grad():
        found = detector(inputs)
    boxes, labels = torch.stack([one["boxes"][0] for one in found]), [int(one["labels"][0]) for one in found]
    target = xf.targets.detection(boxes, labels)
    method = xf.DRISE(xf.Engine(detector, batch_size=4), n_masks=6, cells=5)
    values = method.attribute(inputs, target)
    source = GridDraws((64, 64), 5, 0.5, "bernoulli", 0)
    grids, shifts = source(torch.zeros(6).long(), torch.arange(6))
    masks = [enlarged(grid.numpy() * 1.0, shift, (64, 64)) for grid, shift in zip(grids, shifts.tolist(), strict=True)]
    for n in range(2):
        scores = [xf.Engine(detector).scores(inputs * mask.float(), target)[n].item() for mask in masks]
        expected = sum(score * mask for score, mask in zip(scores, masks, strict=True)) / 3
        torch.testing.assert_close(values[n, 0].double(), expected, rtol=1e-3, atol=1e-4)
        assert max(scores) > 0.05


# Limits


def test_masks_are_never_held():
    """4000 masks of 224 x 224 would be 800 MB."""
    code = """
model, inputs = lambda x: x[:, :, ::32, ::32].mean((2, 3)), torch.rand(1, 3, 224, 224)
def work(n_masks):
    explanation = xf.RISE(xf.Engine(model, batch_size=16), n_masks=n_masks)(inputs, 1)
    assert explanation.values.isfinite().all()
"""
    assert growth(code, 80, 4000) < 100


REFUSED = {
    "no masks": ({"n_masks": 0}, ValueError, "`n_masks` came as 0"),
    "half a mask": ({"n_masks": 0.5}, TypeError, "`n_masks` came as 0.5"),
    "no cells": ({"cells": 0}, ValueError, "`cells` came as 0; give at least 1"),
    "two numbers of cells": ({"cells": (7, 7)}, TypeError, r"`cells` came as \(7, 7\); give a whole number"),
    "nothing kept": ({"keep": 0}, ValueError, "`keep` came as 0; give a probability"),
    "all kept": ({"keep": 1.0}, ValueError, "`keep` came as 1.0; give a probability"),
    "kept in words": ({"keep": "half"}, TypeError, "`keep` came as 'half'"),
    "kept is true": ({"keep": True}, TypeError, "`keep` came as True"),
    "another sampler": ({"sampler": "sobol"}, ValueError, "`sampler` came as 'sobol'; give one of 'bernoulli'"),
    "opposites of a third": (
        {"sampler": "antithetic", "keep": 0.3},
        ValueError,
        '`sampler` "antithetic" keeps .* `keep` is 0.3; give `keep=0.5`',
    ),
    "centred by number": ({"centred": 1}, TypeError, "`centred` came as 1; give True or False"),
    "negative seed": ({"seed": -1}, ValueError, "`seed` came as -1"),
    "an unknown baseline": ({"baseline": "segment_mean"}, ValueError, "`baseline` came as 'segment_mean'"),
}


@pytest.mark.parametrize("method", ["RISE", "DRISE"])
@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_fit_nothing(method, name):
    settings, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        getattr(xf, method)(Small(), **settings)


def test_a_baseline_that_does_not_fit():
    model = Small()
    with pytest.raises(ValueError, match="`baseline`"):
        xf.RISE(model, baseline=(0.0, 1.0)).attribute(signals(), 1)
    assert model.record.rows == 0


def test_signs():
    assert not xf.RISE(Small()).signed
    assert xf.RISE(Small(), centred=True).signed
    assert repr(xf.DRISE(Small())).startswith("DRISE(engine, n_masks=4000, cells=16, keep=0.5, baseline=0.0, centred=F")

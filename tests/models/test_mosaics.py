"""Mosaics and their truth: exact Shapley values, and scores that reward heat in the right cell."""

from itertools import combinations, permutations

import pytest
import torch

from xai_fast.models.demo import demo_model
from xai_fast.models.demo.mosaics import (
    CELL,
    REMOVALS,
    agreement,
    cell_sums,
    counts,
    mosaics,
    positive_share,
    shapley,
    truth,
)


@pytest.fixture(scope="module")
def model():
    return demo_model()


def hidden(mosaic, shown, removal):
    """The mosaic with only these cells shown, built one cell at a time."""
    image = mosaic.inputs.clone()
    for i in set(range(4)) - set(shown):
        top, left = (i // 2) * CELL, (i % 2) * CELL
        cell = image[:, top : top + CELL, left : left + CELL]
        cell.copy_(torch.zeros_like(cell) if removal == "grey" else cell.mean((1, 2), keepdim=True).expand_as(cell))
    return image[None]


def test_seeded_and_a_prefix_of_longer_lists():
    short, long = mosaics(2, seed=4), mosaics(5, seed=4)
    for a, b in zip(short, long, strict=False):
        assert torch.equal(a.inputs, b.inputs)
        assert (a.cells, a.cell, a.target) == (b.cells, b.cell, b.cells[b.cell])
    assert not torch.equal(short[0].inputs, mosaics(1, seed=5)[0].inputs)
    assert all(m.inputs.shape == (3, 224, 224) and len(set(m.cells)) == 4 for m in long)


@pytest.mark.parametrize("removal", REMOVALS)
@torch.inference_mode()
def test_truth_is_the_mean_over_all_orders(model, removal):
    mosaic = mosaics(1, seed=1)[0]
    shown = [subset for size in range(5) for subset in combinations(range(4), size)]
    score = {subset: model(hidden(mosaic, subset, removal))[0, mosaic.target] for subset in shown}
    expected = torch.zeros(4)
    for order in permutations(range(4)):
        for position, i in enumerate(order):
            with_i, without = sorted(order[: position + 1]), sorted(order[:position])
            expected[i] += (score[tuple(with_i)] - score[tuple(without)]) / 24
    torch.testing.assert_close(truth(model, mosaic, mosaic.target, removal), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("removal", REMOVALS)
@torch.inference_mode()
def test_truth_is_complete(model, removal):
    for mosaic in mosaics(3, seed=2):
        gap = model(mosaic.inputs[None]) - model(hidden(mosaic, (), removal))
        torch.testing.assert_close(shapley(model, mosaic, removal).sum(0), gap[0], rtol=1e-3, atol=1e-4)


def test_unknown_removal(model):
    with pytest.raises(ValueError, match="`removal` is 'blur'; use one of 'grey', 'mean'"):
        shapley(model, mosaics(1)[0], "blur")


@torch.inference_mode()
def test_most_mosaics_count_and_their_class_maps_lie_in_the_right_cell(model):
    counted = [mosaic for mosaic in mosaics(8, seed=3) if counts(model, mosaic)]
    assert len(counted) >= 5
    maps = [model.class_maps(m.inputs[None])[0, m.target].clamp_min(0) for m in counted]
    truths = [truth(model, m, m.target, "grey") for m in counted]
    measured = agreement(maps, counted, truths)
    assert measured.share > 0.85
    assert measured.correlation > 0.9
    assert measured.correlation_within > 0.9


def test_scores_of_a_map():
    heatmap = torch.tensor([[1.0, -1.0, 2.0, 0.0], [3.0, 0.0, 0.0, 0.0], [4.0, 0, -8, 0], [0, 0, 0, 0]])
    assert cell_sums(heatmap).tolist() == [3.0, 2.0, 4.0, -8.0]
    assert positive_share(heatmap, 0) == pytest.approx(0.4)
    assert positive_share(heatmap, 3) == 0
    assert positive_share(-torch.ones(4, 4), 0) == 0


def test_agreement_sees_scale_across_mosaics_only_in_the_pooled_correlation():
    two = mosaics(2)
    truths = [torch.tensor([1.0, 0, 0, 0]), torch.tensor([3.0, 0, 0, 1])]
    maps = [t.view(2, 2) * scale for t, scale in zip(truths, (9.0, 1.0), strict=True)]
    measured = agreement(maps, two, truths)
    assert measured.correlation_within == pytest.approx(1)
    assert measured.correlation < 0.7
    assert agreement([t.view(2, 2) for t in truths], two, truths).correlation == pytest.approx(1)

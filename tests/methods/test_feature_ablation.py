"""FeatureAblation against captum, and with segments of every kind."""

from __future__ import annotations

import networks
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from subjects import Small, signals

import xai_fast as xf


def test_captums_map_with_the_same_label_map():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, inputs = networks.awakened("resnet18").double(), networks.photos(2, 64).double()
    labels = xf.segments.superpixels(inputs, "slic", n_segments=20)
    labels = labels - labels.amin((1, 2), keepdim=True)
    ours = xf.FeatureAblation(model, segments=labels, baseline=0.3).attribute(inputs, [1, 2])
    for row in range(2):  # captum takes one mask for all inputs
        theirs = attr.FeatureAblation(model).attribute(
            inputs[row : row + 1], 0.3, row + 1, feature_mask=labels[row][None, None]
        )
        torch.testing.assert_close(ours[row], theirs[0, :1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("plan", ["dense", "local"])
def test_plans_agree(plan):
    model, inputs = networks.awakened("resnet18").double(), networks.photos(2, 64).double()
    labels = xf.segments.superpixels(inputs, "slic", n_segments=30)
    method = xf.FeatureAblation(xf.Engine(model, plan=plan), segments=labels, baseline="segment_mean")
    values = method.attribute(inputs, 3)
    for row in range(2):
        for segment in (0, 7, int(labels[row].max())):
            variant, hidden = inputs[row : row + 1].clone(), labels[row] == segment
            variant[..., hidden] = variant[..., hidden].mean(-1, keepdim=True)
            with torch.no_grad():
                drop = (model(inputs[row : row + 1]) - model(variant))[0, 3]
            torch.testing.assert_close(values[row, 0][hidden], drop.expand(int(hidden.sum())), rtol=1e-9, atol=1e-10)


def test_more_segments_than_16_bits_hold():
    inputs = torch.randn(1, 1, 190, 180, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(190 * 180).view(190, 180) * 3 + 5
    values = xf.FeatureAblation(lambda x: (x * x).flatten(1).sum(1, keepdim=True), segments=labels).attribute(inputs, 0)
    torch.testing.assert_close(values, inputs**2, rtol=1e-3, atol=2e-2)


def test_every_input_may_have_segments_of_its_own():
    model, inputs = Small(), signals()
    maps = torch.stack([torch.arange(143).view(13, 11) // size for size in (30, 12, 50)])
    together = xf.FeatureAblation(model, segments=maps)(inputs, 1)
    assert together.evaluations.tolist() == [6, 13, 4]
    for row in range(3):
        alone = xf.FeatureAblation(model, segments=maps[row]).attribute(inputs[row : row + 1], 1)
        torch.testing.assert_close(together.values[row : row + 1], alone, rtol=1e-5, atol=1e-6)


def test_empty_masks_and_segments_that_are_the_baseline_cost_nothing():
    model, inputs = Small(), signals()
    masks = torch.zeros(4, 13, 11, dtype=torch.bool)
    masks[1, :4], masks[2, 6:] = True, True
    inputs[:, :, 6:] = 0.0
    found = xf.FeatureAblation(model, segments=masks)(inputs, 1)
    assert found.evaluations.tolist() == [2] * len(inputs)
    assert found.values[:, :, 6:].eq(0).all()
    labels = torch.zeros(13, 11).long()
    labels[6:] = 1
    assert xf.FeatureAblation(model, segments=labels)(inputs, 1).evaluations.tolist() == [2] * len(inputs)


def test_one_segment_is_everything():
    model, inputs = Small(), signals()
    found = xf.FeatureAblation(model, segments=torch.full((13, 11), 7), baseline=0.3)(inputs, 1)
    with torch.no_grad():
        drop = model(inputs)[:, 1] - model(torch.full_like(inputs, 0.3))[:, 1]
    torch.testing.assert_close(found.values, drop.view(-1, 1, 1, 1).expand_as(found.values), rtol=1e-4, atol=1e-5)
    assert found.evaluations.tolist() == [2] * len(inputs)


def test_an_and_and_a_xor():
    """Each of two players is needed for the AND; without either the XOR of both becomes true."""

    def games(x):
        first, second = x[:, 0, 1] > 0.5, x[:, 0, 3] > 0.5
        return torch.stack([first & second, first ^ second], dim=1).float()

    values = xf.FeatureAblation(games, segments=torch.arange(5)).attribute(torch.ones(1, 1, 5), torch.tensor([[0, 1]]))
    assert values[0, :, 0].tolist() == [[0, 1, 0, 1, 0], [0, -1, 0, -1, 0]]


@pytest.mark.parametrize("nothing", [torch.full((13, 11), -1), torch.zeros(0, 13, 11, dtype=torch.bool)])
def test_no_segments_give_an_empty_map(nothing):
    found = xf.FeatureAblation(Small(), segments=nothing)(signals(), 1)
    assert found.values.eq(0).all()
    assert found.evaluations.tolist() == [1] * len(signals())


def test_arrays_functions_and_names_are_the_same_segments():
    model, inputs = Small(), networks.photos(2, 40)
    labels = xf.segments.superpixels(inputs, "slic", n_segments=9)
    expected = xf.FeatureAblation(model, segments=labels).attribute(inputs, 1)
    assert xf.FeatureAblation(model, segments=labels.numpy()).attribute(inputs, 1).equal(expected)
    given = iter(labels.numpy().astype(np.uint8))
    assert xf.FeatureAblation(model, segments=lambda _: next(given)).attribute(inputs, 1).equal(expected)
    named = xf.FeatureAblation(model, segments="grid").attribute(inputs, 1)
    cells = xf.FeatureAblation(model, segments=xf.segments.superpixels(inputs, "grid")).attribute(inputs, 1)
    assert named.equal(cells)


def test_a_signed_picture_of_superpixels(tmp_path):
    model, preprocess, classes = xf.load("demo")
    photo = preprocess(Image.fromarray(data.cat()))[None]
    found = xf.FeatureAblation(model, segments="slic", baseline="blur")(photo, classes.index("cat"))
    (picture,) = found.overlay(photo)
    assert np.asarray(picture).std() > 0
    assert (found.values > 0).any()
    found.save(tmp_path)
    assert xf.Explanation.load(tmp_path).values.equal(found.values)


def test_the_plan_counts_the_segments_that_there_are():
    """`cost` can only bound them before a picture is seen."""
    engine, inputs = xf.Engine(Small()), signals(2, (3, 16, 16))
    told = engine.explain_plan(xf.FeatureAblation(engine, segments="grid"), inputs)
    assert "rows: 130 (2 clean, 128 variants in which boxes changed)" in told

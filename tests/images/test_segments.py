"""Segments in every form that users have them, and the messages where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import xai_fast as xf
from xai_fast.images.baselines import resolve_baseline
from xai_fast.images.segments import SegmentMap, check_segments, most_segments, resolve_segments

INPUTS = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(0))


def test_numbers_become_dense_and_none_stays_none():
    map_ = torch.tensor([[[5, 5, -3], [900000, 7, -1]], [[0, 0, 0], [0, 0, 0]]])
    found = SegmentMap.of(map_)
    assert found.labels.tolist() == [[[0, 0, -1], [2, 1, -1]], [[0, 0, 0], [0, 0, 0]]]
    assert found.counts.tolist() == [3, 1]


def test_one_map_for_all_inputs_is_numbered_once():
    found = resolve_segments(torch.arange(320).view(20, 16) * 3, INPUTS, None)
    assert found.labels.stride(0) == 0
    assert found.counts.tolist() == [320, 320]
    assert found.labels[1].flatten().tolist() == list(range(320))


@pytest.mark.parametrize("algorithm", ["slic", "quickshift", "felzenszwalb", "grid"])
def test_superpixels_cover_every_picture(algorithm):
    labels = xf.segments.superpixels(INPUTS, algorithm)
    assert labels.shape == (2, 20, 16)
    assert labels.min() >= 0
    assert SegmentMap.of(labels).counts.max() <= most_segments(algorithm, (3, 20, 16))


def test_settings_of_scikit_image_pass():
    few, many = (
        xf.segments.superpixels(INPUTS[:1], "slic", n_segments=count, compactness=50).unique().numel()
        for count in (4, 60)
    )
    assert few < many


def test_the_grid_fits_signals_volumes_and_what_is_smaller_than_it():
    for shape, cells in (((1, 2, 50), 8), ((1, 1, 3, 9, 20), 3 * 8 * 8), ((1, 1, 2, 2), 4)):
        found = resolve_segments("grid", torch.zeros(shape), None)
        assert found.counts.tolist() == [cells]
        assert most_segments("grid", shape[1:]) == cells


def test_a_function_gets_pictures_between_0_and_1():
    seen = []

    def halves(picture):
        seen.append(picture)
        return np.arange(16)[None].repeat(20, 0) // 8

    found = resolve_segments(halves, INPUTS, None)
    assert found.counts.tolist() == [2, 2]
    assert all(one.shape == (20, 16, 3) and one.min() >= 0 and one.max() <= 1 for one in seen)
    with pytest.raises(ValueError, match=r"the function in `segments` returned \(20, 8\) of torch.int64"):
        resolve_segments(lambda picture: halves(picture)[:, ::2], INPUTS, None)


def test_an_annotation_is_one_group_per_colour():
    picture = Image.new("RGB", (8, 6), "white")
    picture.paste((255, 0, 0), (0, 0, 4, 3))
    picture.paste((0, 0, 255), (4, 3, 8, 6))
    labels = xf.segments.annotation(picture)
    assert labels.shape == (6, 8)
    assert len(labels.unique()) == 3
    assert labels[0, 0] != labels[5, 7] != labels[0, 7]
    larger = xf.segments.annotation(picture, (12, 16))
    assert larger.equal(labels.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert xf.segments.annotation(np.array([[3, 3], [9, 3]], dtype=np.uint8)).tolist() == [[0, 0], [1, 0]]
    with pytest.raises(ValueError, match=r"an array \(2, 2\) of float64"):
        xf.segments.annotation(np.zeros((2, 2)))


def test_instances_are_masks_padded_with_nothing():
    masks = torch.zeros(3, 1, 4, 5)
    masks[0, 0, :2], masks[1, 0, 2:], masks[2, 0, 1:3] = 0.9, 0.8, 0.7
    found = [
        {"scores": torch.tensor([0.9, 0.4, 0.6]), "masks": masks},
        {"scores": torch.tensor([0.2]), "masks": masks[:1]},
    ]
    stack = xf.segments.instances(lambda pictures: found[: len(pictures)], torch.zeros(2, 3, 4, 5))
    assert stack.dtype is torch.bool
    assert stack.shape == (2, 2, 4, 5)
    assert stack[0].flatten(1).sum(1).tolist() == [10, 10]
    assert not stack[1].any()


def test_torchvisions_own_model_finds_objects_that_are_ablated(monkeypatch):
    """With random weights it finds none, so its last stage says where they are; everything around that is its own."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=64, max_size=96).eval()
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [30.0, 40.0, 60.0, 60.0], [0.0, 0.0, 9.0, 9.0]])
    one = {"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "scores": torch.tensor([0.9, 0.8, 0.1])}
    found = [{**one, "masks": torch.ones(3, 1, 28, 28)} for _ in range(2)]
    monkeypatch.setattr(model.roi_heads, "forward", lambda *_args: (found, {}))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    masks = xf.segments.instances(model, images)
    assert masks.shape == (2, 2, 64, 64)
    assert masks[0, 0, 8:26, 8:26].all()
    assert not masks[0, 0, 34:].any()

    def scores(x):
        return x[:, 0].flatten(1).sum(1, keepdim=True)

    values = xf.FeatureAblation(scores, segments=masks).attribute(images, 0)
    for picture, value, objects in zip(images, values, masks, strict=True):
        for mask in objects:
            inside = value[0][mask]
            torch.testing.assert_close(inside, picture[0][mask].sum().expand_as(inside), rtol=1e-4, atol=1e-3)
    assert values[:, 0][~masks.any(1)].eq(0).all()


def test_a_picture_is_segmented_once(monkeypatch):
    from skimage import segmentation

    asked, slic = [], segmentation.slic
    monkeypatch.setattr(segmentation, "slic", lambda *args, **settings: asked.append(1) or slic(*args, **settings))
    pictures = torch.rand(2, 3, 18, 15, generator=torch.Generator().manual_seed(5))
    first = xf.segments.superpixels(pictures, "slic")
    again = xf.segments.superpixels(pictures.flip(0), "slic").flip(0)
    assert len(asked) == 2
    assert first.equal(again)
    first[:] = 0  # what is kept is nobody else's
    assert xf.segments.superpixels(pictures, "slic").equal(again)
    xf.segments.superpixels(pictures, "slic", n_segments=3)
    assert len(asked) == 4


def test_one_channel_is_a_grey_picture():
    grey = torch.rand(1, 1, 18, 15, generator=torch.Generator().manual_seed(5))
    assert xf.segments.superpixels(grey, "slic").equal(xf.segments.superpixels(grey.expand(-1, 3, -1, -1), "slic"))


def test_segment_means_keep_what_has_no_segment():
    labels = torch.tensor([[0, 0, 1, -1]]).expand(20, 4).repeat_interleave(4, 1)
    segments = resolve_segments(labels, INPUTS, None)
    means = resolve_baseline("segment_mean", INPUTS, None, segments)
    torch.testing.assert_close(means[:, :, :, :8], INPUTS[..., :8].mean((2, 3), keepdim=True).expand(-1, -1, 20, 8))
    assert means[..., 12:].equal(INPUTS[..., 12:])
    with pytest.raises(ValueError, match="needs a label map"):
        resolve_baseline("segment_mean", INPUTS, None)


@pytest.mark.parametrize(
    ("segments", "error", "message"),
    [
        ("superpixel", ValueError, "the names are grid, quickshift, slic, felzenszwalb"),
        (torch.zeros(20, 16), TypeError, "`segments` came as torch.float32; give a label map of integers"),
        ([[0, 1]], TypeError, "`segments` came as list"),
    ],
)
def test_what_can_never_fit_is_refused_at_once(segments, error, message):
    with pytest.raises(error, match=message):
        check_segments(segments)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (torch.zeros(16, 20).long(), r"a label map for these inputs must be \(20, 16\) or \(2, 20, 16\)"),
        (torch.zeros(3, 20, 16).long(), r"`segments` has shape \(3, 20, 16\)"),
        (torch.zeros(3, 5, 20, 16).bool(), r"boolean masks for these inputs must be \(K, 20, 16\) or \(2, K, 20, 16\)"),
    ],
)
def test_shapes_that_do_not_fit_the_inputs_are_named(segments, message):
    with pytest.raises(ValueError, match=message):
        resolve_segments(segments, INPUTS, None)


def test_names_need_pictures():
    with pytest.raises(ValueError, match=r"`segments` 'slic' needs pictures.*the inputs are \(1, 2, 50\)"):
        resolve_segments("slic", torch.zeros(1, 2, 50), None)

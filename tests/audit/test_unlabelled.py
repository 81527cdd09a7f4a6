"""Whose class is explained: each image's own label where that is known, whatever else is in its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from photo_folders import PREPROCESS, Net, sound
from PIL import Image

import xai_fast as xf
from xai_fast.audit.photographs import photographs_of

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Photographs of which every fourth has a label that the model does not know, in an order that mixes them."""
    folder = sound(tmp_path_factory.mktemp("mixed") / "photographs", 24)
    table = ["path,label"]
    for n in range(24):
        name = f"{CLASSES[n % 3]}/{n:03d}.jpg"
        table.append(f"{name},{'owl' if n % 4 == 0 else CLASSES[n % 3]}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    return folder / "labels.csv"


@pytest.mark.parametrize("noisy", [0.0, 1.0])
def test_an_image_without_a_label_leaves_the_others_theirs(mixed, tmp_path, noisy):
    net = Net().eval()
    run = xf.audit(
        net, mixed, out=tmp_path, preprocess=PREPROCESS, classes=CLASSES, target="label", noisy=noisy, methods="GradCAM"
    )
    rows = run.table(["label", "target", "prediction", "label_probability"]).to_pylist()
    unknown = [row["label"] is None for row in rows]
    assert 0 < sum(unknown) < len(rows)
    for row in rows:
        assert row["target"] == (row["prediction"] if row["label"] is None else row["label"])
        assert (row["label_probability"] is None) == (row["label"] is None)
    targets = [row["target"] for row in rows]
    assert targets != [row["prediction"] for row in rows]  # or else nothing is shown
    with photographs_of(run, mixed) as found:
        pictures = found.pictures(range(len(rows)))
    seen = torch.stack([PREPROCESS(Image.fromarray(pictures[n])) for n in range(len(rows))])
    expected = xf.GradCAM(net)(seen, torch.tensor(targets), resolution="native").heatmap().numpy()
    steps = run.table(["GradCAM.scale"]).column(0).to_numpy()[:, None, None]
    assert (np.abs(run.maps()[:, 0].numpy() - expected) <= 0.52 * steps + 1e-5 * np.abs(expected).max()).all()


def test_what_is_asked_of_the_truth_is_not_asked_where_that_is_unknown(mixed, tmp_path):
    net = Net().eval()
    methods = [xf.GradCAM(net), xf.ErrorAttribution(net, kind="activation")]
    run = xf.audit(net, mixed, out=tmp_path, preprocess=PREPROCESS, classes=CLASSES, target="label", methods=methods)
    assert run.counts == {"ok": 24}
    rows = run.table(["label", "GradCAM.heatmap", "ErrorAttribution.heatmap"]).to_pylist()
    for row in rows:
        assert row["GradCAM.heatmap"] is not None
        assert (row["ErrorAttribution.heatmap"] is None) == (row["label"] is None)

"""Maps of noisy copies and masks: stored as they are defined, and what the checks say of planted faults and of none."""

from __future__ import annotations

import csv
import dataclasses

import made_records
import numpy as np
import pytest
import torch
from fake_audit import contents
from photo_folders import MODEL_FILE, PREPROCESS, Net, sound
from PIL import Image
from scipy.stats import spearmanr
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.audit.checks import overlap, unstable
from xai_fast.audit.checks.records import in_mask, records_of
from xai_fast.audit.checks.regions import shares
from xai_fast.audit.checks.statistics import mean_below, more_than
from xai_fast.audit.checks.storing import findings_of
from xai_fast.audit.checks.thresholds import DEFAULT, Thresholds
from xai_fast.audit.decoding.worker import covered
from xai_fast.audit.noise import Noise
from xai_fast.audit.store.maps import compared, coverage
from xai_fast.cli.app import app

CLASSES = ("cat", "dog", "eel")


def records(seed=0, **further):
    return dataclasses.replace(made_records.records(seed=seed)[0], **further)


def with_noise(seed=0, **planted):
    made = records(seed)
    noise, changed = made_records.noise(made, seed, **planted)
    return dataclasses.replace(made, noise=noise), changed


def with_masks(seed=0, **planted):
    made = records(seed)
    masks, outside = made_records.masks(made, seed, **planted)
    return dataclasses.replace(made, masks=masks), outside


# What is stored


def test_changes_are_the_norms_and_ranks_of_their_definitions():
    draws = np.random.default_rng(0)
    maps, noisy = draws.standard_normal((2, 5, 4, 6))
    maps[1], noisy[2] = 0, 1
    maps[3] = np.round(maps[3])  # equal values
    found = compared(maps, noisy)
    for n in (0, 2, 3, 4):
        expected = np.linalg.norm(noisy[n] - maps[n]) / np.linalg.norm(maps[n])
        assert found["change"][n] == pytest.approx(expected, rel=1e-6)
    for n in (0, 3, 4):
        assert found["rank"][n] == pytest.approx(spearmanr(maps[n].ravel(), noisy[n].ravel()).statistic, abs=1e-6)
    assert np.isnan(found["change"][1])
    assert np.isnan(found["rank"][[1, 2]]).all()
    same = compared(maps[:1], maps[:1])
    assert (same["change"][0], same["rank"][0]) == (0, pytest.approx(1))


@pytest.mark.parametrize(("size", "shape"), [((12, 10), (4, 5)), ((7, 9), (3, 4)), ((5, 5), (7, 3)), ((6, 6), (6, 6))])
def test_coverage_against_counting_fine_pixels(size, shape):
    mask = np.random.default_rng(0).random(size)
    fine = np.kron(mask, np.ones(shape))  # every pixel as shape of smaller ones, which cells divide evenly
    rows, columns = (np.split(np.arange(n), cells) for n, cells in zip(fine.shape, shape, strict=True))
    expected = [[fine[np.ix_(r, c)].mean() for c in columns] for r in rows]
    np.testing.assert_allclose(coverage(mask, shape), expected, atol=1e-12)


def test_which_images_have_a_copy_depends_on_their_ids_alone():
    noise = Noise(0.3)
    ids = list(range(4000))
    chosen = {ids[n] for n in noise.chosen(ids)}
    assert chosen == {n for n in ids if noise.chosen([n])}
    assert abs(len(chosen) / 4000 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert set(noise.chosen(ids)) < set(Noise(0.6).chosen(ids)), "a larger share asks about the same images, and more"
    assert Noise(1.0).chosen(ids) == ids


def test_noise_is_of_its_size_and_of_its_id():
    sizes = torch.tensor([1.0, 2, 3])[:, None, None, None]
    sizes = torch.tensor([1.0, 2, 3])[:, None, None, None]
    inputs = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * sizes
    together = Noise(1.0, 0.05).added(inputs, torch.tensor([4, 9, 2]))
    for n, key in enumerate((4, 9, 2)):
        (alone,) = Noise(1.0, 0.05).added(inputs[n : n + 1], torch.tensor([key]))
        assert torch.equal(together[n], alone)
        spread = float(inputs[n].max() - inputs[n].min())
        assert float((alone - inputs[n]).std()) == pytest.approx(0.05 * spread, rel=0.05)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Photographs of 24 x 20 with masks, of which some are bad."""
    folder = tmp_path_factory.mktemp("masks")
    paths = sorted(sound(folder, 12).rglob("*.jpg"))
    (folder / "small_models.py").write_text(MODEL_FILE)
    masks = []
    for n, _ in enumerate(paths):
        levels = np.zeros((20, 24), np.uint8)
        levels[5:15, 6:12] = n + 1  # a class by its number
        masks.append(f"mask{n}.png")
        Image.fromarray(levels).save(folder / masks[-1])
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(folder / masks[4])
    Image.fromarray(np.ones((24, 20), np.uint8)).save(folder / masks[5])
    (folder / masks[6]).write_bytes((folder / masks[7]).read_bytes()[:40])
    (folder / masks[3]).unlink()
    masks[8] = ""
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "mask"])
        writer.writerows(
            (path.relative_to(folder), path.parent.name, mask) for path, mask in zip(paths, masks, strict=True)
        )
    return folder / "labels.csv"


def test_masks_are_stored_on_the_grid_of_the_maps(table, tmp_path):
    net = Net().eval()
    run = xf.audit(net, table, methods=["GradCAM", "Saliency"], out=tmp_path, preprocess=PREPROCESS, classes=CLASSES)
    rows = run.table().to_pylist()
    assert run.counts == {"ok": 12}
    mask = np.zeros((20, 24))
    mask[5:15, 6:12] = 1
    view = PREPROCESS.view(Image.fromarray((255 * mask).astype(np.uint8)).convert("RGB"))
    cover = np.asarray(view)[..., 0] / 255
    for n, row in enumerate(rows):
        if n in (3, 4, 5, 6, 8):
            assert row["mask_area"] is row["GradCAM.mask"] is None
            continue
        assert row["mask_error"] is None
        assert row["mask_area"] == pytest.approx(cover.mean(), abs=1e-6)
        assert row["Saliency.mask"] == np.rint(255 * cover).astype(np.uint8).tobytes()
        shape = row["GradCAM.height"], row["GradCAM.width"]
        kept = np.frombuffer(row["GradCAM.mask"], np.uint8).reshape(shape) / 255
        np.testing.assert_allclose(kept, coverage(cover, shape), atol=0.5 / 255 + 1e-9)
    said = {n: rows[n]["mask_error"] for n in (3, 4, 5, 6, 8)}
    assert said[3] == "the mask: no such file"
    assert said[4] == "the mask is black wherever the model sees"
    assert said[5] == "the mask has 20 x 24 pixels, and its photograph 24 x 20"
    assert said[6].startswith("the mask: not an image that Pillow can read")
    assert said[8] is None
    made = records_of(run, "GradCAM")
    spread = shares(run.maps("GradCAM")[:, 0].numpy())
    for n in (0, 1, 2, 7, 9, 10, 11):
        kept = np.frombuffer(rows[n]["GradCAM.mask"], np.uint8).reshape(spread[n].shape) / 255
        if np.isfinite(spread[n]).all():
            assert made.masks["inside"][n] == pytest.approx((spread[n] * kept).sum())
            assert made.masks["strongest"][n] == pytest.approx(kept.flat[spread[n].argmax()])
        else:
            assert np.isnan(made.masks["inside"][n])
    assert np.isnan(made.masks["area"][[3, 4, 5, 6, 8]]).all()


def test_bad_masks_are_said_by_the_commands(table, tmp_path, monkeypatch):
    monkeypatch.chdir(table.parent)
    options = ["-d", str(table), "-m", "small_models.py:net", "-o", str(tmp_path / "run")]
    found = CliRunner().invoke(app, ["audit", "run", *options])
    assert found.exit_code == 0, found.output
    assert "4 of 11 masks cannot be used" in found.output
    assert "cat/009.jpg: the mask: no such file" in found.output
    status = CliRunner().invoke(app, ["audit", "status", str(tmp_path / "run")])
    assert "4 of 11 masks cannot be used" in status.output


def test_with_preprocessing_of_ones_own_masks_are_left_out_and_that_is_said(table, tmp_path):
    run = xf.audit(Net().eval(), table, out=tmp_path, preprocess=lambda photo: PREPROCESS(photo), classes=CLASSES)
    assert "mask_area" not in run.schema.names
    assert "masks are left out: preprocessing is a callable" in run.plan.about["notes"][0]
    assert "preprocessing is a callable" in xf.audit.check(run).skipped["overlap"]


def test_masks_count_whatever_number_they_are_written_with():
    levels = np.array([[0, 1], [20, 255]], np.uint8)
    assert np.asarray(covered(Image.fromarray(levels), lossy=False)).tolist() == [[0, 255], [255, 255]]
    assert np.asarray(covered(Image.fromarray(levels), lossy=True)).tolist() == [[0, 0], [0, 255]]
    colours = np.zeros((1, 2, 3), np.uint8)
    colours[0, 1, 2] = 64
    assert np.asarray(covered(Image.fromarray(colours), lossy=False)).tolist() == [[0, 255]]


def test_what_is_stored_of_noisy_copies_is_the_methods_own_map_of_them(table, tmp_path):
    net = Net().eval()
    methods = [xf.GradCAM(net, layer="second"), xf.Occlusion(net, window=4), xf.EigenCAM(net, layer="second")]
    run = xf.audit(net, table, methods=methods, out=tmp_path, preprocess=PREPROCESS, classes=CLASSES, noisy=0.6)
    rows = run.table().to_pylist()
    chosen = Noise(0.6).chosen(range(12))
    assert 0 < len(chosen) < 12
    inputs = torch.stack([PREPROCESS(Image.open(table.parent / rows[n]["uri"])) for n in chosen])
    copies = Noise(0.6).added(inputs, torch.tensor(chosen))
    target = torch.tensor([rows[n]["target"] for n in chosen])
    for label in run.methods:
        method = methods[run.methods.index(label)]
        ids = torch.tensor(chosen)
        asked = None if label == "EigenCAM" else target
        maps, noisy = (
            method(one, asked, resolution="native", sample_ids=ids).heatmap().numpy() for one in (inputs, copies)
        )
        expected = compared(maps, noisy)
        np.testing.assert_allclose([rows[n][f"{label}.change"] for n in chosen], expected["change"], rtol=1e-3)
    assert [rows[n]["noisy_prediction"] for n in chosen] == net(copies).argmax(1).tolist()
    for n in set(range(12)) - set(chosen):
        assert rows[n]["GradCAM.change"] is rows[n]["noisy_prediction"] is None


def test_a_run_with_noise_and_masks_repeats_to_the_byte_and_resumes(table, tmp_path):
    net, more = Net().eval(), {"preprocess": PREPROCESS, "classes": CLASSES, "noisy": 0.5, "shard_size": 4}
    whole = xf.audit(net, table, out=tmp_path / "whole", **more)
    run = xf.audit(net, table, out=tmp_path / "run", **more)
    run.shards.path(1).unlink()
    xf.audit(net, table, out=tmp_path / "run", **more)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"attribution\.noise"):
        xf.audit(net, table, out=tmp_path / "run", **{**more, "noisy": 0.25})
    assert whole.complete


def test_without_either_the_shards_have_neither(table, tmp_path):
    data = sound(tmp_path / "photographs", 4)
    run = xf.audit(Net().eval(), data, out=tmp_path / "run", preprocess=PREPROCESS)
    names = run.schema.names
    assert not [name for name in names if "noisy" in name or "mask" in name or name.endswith(("change", "rank"))]
    assert not {"noise", "masks"} & run.plan.fixed["attribution"].keys()
    found = xf.audit.check(run)
    assert {"unstable", "overlap"} <= found.skipped.keys()
    assert "--noisy" in found.skipped["unstable"]
    assert findings_of(run.directory).skipped == found.skipped
    assert "unstable was not checked: the run explained no noisy copies" in repr(found)
    with pytest.raises(ValueError, match="`noisy` came as 2"):
        xf.audit(Net().eval(), data, out=tmp_path / "other", preprocess=PREPROCESS, noisy=2)


def test_in_mask_against_adding_up():
    spread = np.array([[0.1, 0.2], [0.4, 0.3]])
    cover = np.array([[1.0, 0.0], [0.25, 0.5]])
    assert in_mask(spread, cover) == pytest.approx((0.1 + 0.1 + 0.15, 0.25))
    assert in_mask(np.full((2, 2), 0.25), cover) == pytest.approx((0.4375, 0.4375)), "equals share"
    assert np.isnan(in_mask(np.full((2, 2), np.nan), cover)).all()


# What the checks say


def test_statistics_against_counting():
    assert more_than(3, 3, 0.2) == pytest.approx(0.2**3)
    assert more_than(0, 3, 0.2) == pytest.approx(1)
    assert mean_below(np.full(5, 0.2), 0.1) == 1
    assert mean_below(np.full(5, 0.0), 0.1) == 0
    assert mean_below(np.array([-1.0, 0.0, 1.0]), 0) == pytest.approx(0.5)


def test_a_class_whose_maps_change_is_found():
    made, changed = with_noise(changed=0.5)
    (found,) = unstable.check(made, DEFAULT)
    assert found.title.startswith("bee: a little noise makes")
    assert set(found.positions) == set(np.flatnonzero(changed))
    asked = int((np.isfinite(made.noise["change"]) & (made.target == 1)).sum())
    assert found.evidence["noisy copies"] == asked
    assert found.evidence["maps that become others"] == pytest.approx(changed.sum() / asked)
    assert found.evidence["elsewhere"] == 0
    assert (found.severity, found.confirmation.state) == ("low", "no cue")


def test_a_method_whose_maps_all_change_is_one_finding():
    made, changed = with_noise(everywhere=0.7)
    (found,) = unstable.check(made, DEFAULT)
    assert found.title.startswith("all classes: ")
    assert found.severity == "medium"
    assert len(found.positions) == changed.sum()


def test_where_the_answer_changes_the_map_may():
    made, changed = with_noise(changed=0.5)
    noise = {**made.noise, "prediction": np.where(changed, (made.prediction + 1) % 4, made.noise["prediction"])}
    assert unstable.check(dataclasses.replace(made, noise=noise), DEFAULT) == []


def test_maps_that_stay_are_seldom_called_unstable():
    """Of sets in which maps become others alike in every class, at most alpha have a claim, by any effect."""
    eager, claimed = Thresholds(alpha=0.1, error_gain=0.0, unstable=0.2), 0
    for seed in range(100):
        made, _ = with_noise(seed, everywhere=0.2)
        claimed += bool(unstable.check(made, eager))
    assert claimed <= 10 + 9
    assert not any(unstable.check(with_noise(seed, everywhere=0.1)[0], DEFAULT) for seed in range(20))


def test_a_class_that_looks_beside_its_object_is_found():
    made, _ = with_masks(outside=1.0)
    (found,) = overlap.check(made, DEFAULT)
    assert found.title.startswith("bee: the attribution lies in the object's mask hardly more than chance")
    own, masks = made.target == 1, made.masks
    assert found.evidence["attribution in the mask"] == pytest.approx(masks["inside"][own].mean())
    assert found.evidence["strongest place in the mask"] == pytest.approx(masks["strongest"][own].mean())
    assert found.evidence["by chance (the mask's area)"] == pytest.approx(masks["area"][own].mean())
    gain = (masks["inside"] - masks["area"]) / (1 - masks["area"])
    assert found.evidence["from chance (0) to all inside (1)"] == pytest.approx(gain[own].mean())
    assert len(found.positions) == own.sum()
    assert found.positions[0] == np.flatnonzero(own)[gain[own].argmin()]
    assert (found.severity, found.confirmation.state) == ("low", "no cue")  # as a map alone proves nothing


def test_part_of_a_class_that_looks_beside_is_found():
    made, outside = with_masks(outside=0.4)
    (found,) = overlap.check(made, DEFAULT)
    assert found.title.startswith("bee: in ")
    assert set(found.positions) <= set(np.flatnonzero(outside))
    assert found.severity == "low"


def test_a_model_that_looks_anywhere_is_one_finding():
    made, _ = with_masks(outside=1.0, of=None)
    (found,) = overlap.check(made, DEFAULT)
    assert found.title.startswith("all classes: ")
    assert found.severity == "medium"
    assert found.class_index is None


def test_maps_for_another_class_than_the_labels_are_left_out():
    made, outside = with_masks(outside=1.0)
    numbers = {**made.numbers, "label": np.where(outside, 0, made.target).astype(float)}
    assert overlap.check(dataclasses.replace(made, numbers=numbers), DEFAULT) == []


def test_models_that_look_at_their_objects_are_seldom_blamed():
    """At alpha 0.1 and no least effect at most one set in ten has a claim, on the border as well as inside it."""
    eager, claimed, borderline = Thresholds(alpha=0.1, least_share=0.0, error_gain=0.0, overlap=0.4), 0, 0
    for seed in range(100):
        claimed += bool(overlap.check(with_masks(seed, inside=0.7)[0], eager))
        borderline += bool(overlap.check(with_masks(seed, inside=0.4)[0], eager))
    assert claimed <= 10 + 9
    assert borderline <= 10 + 9
    assert not any(overlap.check(with_masks(seed)[0], DEFAULT) for seed in range(20))

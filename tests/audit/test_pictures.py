"""Pictures that are there twice, spoiled, unlike all others, or in an order that shows: measured, found, left alone."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil

import fake_audit
import made_records
import numpy as np
import pytest
from fake_audit import contents
from photo_folders import PREPROCESS, Net, sound
from PIL import Image, ImageFilter

import xai_fast as xf
from xai_fast.audit.checks import class_sizes, duplicates, in_turn, outliers, picture_quality
from xai_fast.audit.checks.near_pairs import differing, near_pairs
from xai_fast.audit.checks.records import records_of
from xai_fast.audit.checks.thresholds import DEFAULT, Thresholds
from xai_fast.audit.checks.turned import turned, upright
from xai_fast.audit.decoding.measuring import measured
from xai_fast.audit.store.schema import CODES, LOOKS
from xai_fast.models.demo import photographs

CLASSES = ("cat", "dog", "eel")
MODULES = (duplicates, outliers, in_turn, picture_quality, class_sizes)


def records(seed=0, **changed):
    """Of pictures that have nothing in common."""
    made, *_ = made_records.records(seed=seed)
    draws = np.random.default_rng(seed + 3000)
    looks = {
        "darkest": draws.uniform(0.02, 0.2, len(made)),
        "brightest": draws.uniform(0.7, 0.99, len(made)),
        "colour": draws.uniform(0.1, 0.5, len(made)),
        "entropy": draws.uniform(5, 7.8, len(made)),
    }
    codes = draws.integers(-(2**63), 2**63 - 1, (len(made), 3))
    numbers = {**made.numbers, "contrast": draws.uniform(0.1, 0.3, len(made))}
    return dataclasses.replace(made, looks=looks, codes=codes, numbers=numbers, **changed)


# What is measured


def compressed(picture, quality=60):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def bits(picture):
    _, looks = measured(picture)
    return np.array([looks["signs"], looks["steps"]], np.int64).view(np.uint8)[None]


EDITS = {
    "compressed": compressed,
    "half as large": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter": lambda picture: Image.eval(picture, lambda level: level * 0.9 + 20),
    "sharper": lambda picture: picture.filter(ImageFilter.UnsharpMask(2, 60)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_codes_outlive_what_leaves_a_picture_the_same(edit):
    """Those of two photographs are far beyond the threshold; of a wall, whose parts are all alike, half the size is."""
    views = [photo.convert("RGB").resize((224, 224)) for photo in photographs()]
    own = np.concatenate([bits(view) for view in views])
    again = np.concatenate([bits(EDITS[edit](view)) for view in views])
    apart = differing(own, again)
    assert (apart <= DEFAULT.twins).sum() >= len(own) - (edit == "half as large")
    others = [differing(own[n : n + 1], own[m : m + 1])[0] for n in range(len(own)) for m in range(n)]
    assert min(others) > 2 * DEFAULT.twins


def test_few_bits_turn_in_what_leaves_a_picture_the_same():
    views = [photo.convert("RGB").resize((224, 224)) for photo in photographs()]
    apart = [differing(bits(view), bits(edit(view)))[0] for edit in EDITS.values() for view in views]
    assert np.mean(apart) <= 1.71  # as with signs beside the median, which do not say what a turned picture's are


WAYS = {one.name: one for one in Image.Transpose}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("size", "most"), [((224, 224), 1), ((224, 168), DEFAULT.twins // 2)])
def test_codes_say_what_those_of_a_turned_picture_are(way, size, most):
    """Whichever of the two is turned; and those of another photograph are none of them.

    To the bit, where the picture is made smaller by a whole number: else pixels between two parts count for the first.
    """

    def waves(view):
        return np.array([measured(view)[1]["signs"]], np.int64)

    views = [photo.convert("RGB").resize(size) for photo in photographs()]
    for number, view in enumerate(views):
        own, other = waves(view), waves(view.transpose(WAYS[way]))
        ways = [differing(upright(one), code)[0] for one, by in ((own, other), (other, own)) for code in turned(by)]
        assert min(ways) <= most
        stranger = waves(views[number - 1])
        assert min(differing(upright(own), code)[0] for code in turned(stranger)) > DEFAULT.twins


def test_content_is_of_every_pixel_and_of_the_shape():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    other = pixels.copy()
    other[3, 4, 1] ^= 1
    grey = pixels[..., 0]
    pictures = [pixels, pixels.copy(), other, pixels.reshape(10, 12, 3), grey, np.stack([grey] * 3, 2)]
    codes = [measured(Image.fromarray(one))[1]["content"] for one in pictures]
    assert codes[0] == codes[1]
    assert codes[4] == codes[5]  # grey is grey, however it is stored
    assert len(set(codes)) == 4
    assert all(-(2**63) <= code < 2**63 for code in codes)


def test_looks_are_those_of_the_picture():
    flat = measured(Image.new("RGB", (20, 10), (51, 51, 51)))[1]
    assert flat["darkest"] == flat["brightest"] == pytest.approx(0.2)
    assert (flat["colour"], flat["entropy"]) == (0, 0)
    two = np.zeros((10, 10, 3), np.uint8)
    two[:5] = (255, 0, 0)
    found = measured(Image.fromarray(two))[1]
    assert (found["colour"], found["entropy"]) == (1, 1)
    assert (found["darkest"], found["brightest"]) == (0, pytest.approx(0.299))
    for size in ((1, 1), (1, 300), (2, 2)):
        assert all(np.isfinite(value) for value in measured(Image.new("L", size))[1].values())


# Pairs


@pytest.mark.parametrize("most", [0, 7, 10])
def test_near_pairs_are_those_of_comparing_each_with_each(most):
    draws = np.random.default_rng(most)
    codes = draws.integers(0, 256, (600, 16), dtype=np.uint8)
    codes[300:] = codes[:300]  # each a second time, with some bits turned
    for row in range(300, 600):
        for bit in draws.permutation(128)[: draws.integers(0, 14)]:
            codes[row, bit // 8] ^= 1 << (bit % 8)
    codes[10:13] = codes[9]
    pairs, apart = near_pairs(codes, most)
    assert (apart == differing(codes[pairs[:, 0]], codes[pairs[:, 1]])).all()
    assert (apart <= most).all()
    every = np.argwhere(np.triu(differing(codes[:, None].repeat(600, 1), codes[None].repeat(600, 0)) <= most, 1))
    assert {tuple(pair) for pair in pairs.tolist()} <= {tuple(pair) for pair in every.tolist()}
    group = duplicates._joined(600, pairs)
    joined = group[every[:, 0]] == group[every[:, 1]]
    assert len(every) >= 10
    assert joined.mean() >= (1 if most < 8 else 0.9)


def test_many_equal_codes_are_a_chain_and_no_heap():
    codes = np.zeros((5000, 16), np.uint8)
    pairs, apart = near_pairs(codes, 10)
    assert len(pairs) == 4999
    assert not apart.any()
    assert near_pairs(codes[:1], 10)[0].shape == (0, 2)
    assert near_pairs(codes[:0], 10)[0].shape == (0, 2)


# Checks on made records


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.NAME)
@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_has_no_findings(module, seed):
    assert module.check(records(seed), DEFAULT) == []


def twins(made, *, labels=False, exact=True, bits=0):
    """With the codes of the first ten rows given to the ten that are 100 further on (of the same class)."""
    codes, label = made.codes.copy(), made.numbers["label"].copy()
    for row in range(10):
        other = row + 100
        codes[other] = codes[row]
        label[other] = (label[row] + labels) % 4
        if not exact:
            codes[other, 0] += 1
            codes[other, 1] ^= (1 << bits) - 1
    colours = {name: made.numbers[name].copy() for name in ("red", "green", "blue", "brightness")}
    for values in colours.values():
        values[100:110] = values[:10]
    return dataclasses.replace(made, codes=codes, numbers={**made.numbers, **colours, "label": label})


@pytest.mark.parametrize(("exact", "turned"), [(True, 0), (False, 0), (False, 6)])
def test_duplicates_are_found(exact, turned):
    (found,) = duplicates.check(twins(records(), exact=exact, bits=turned), DEFAULT)
    assert found.severity == "low"
    assert sorted(found.positions) == [*range(10), *range(100, 110)]
    assert found.positions[:2] == (0, 100)  # side by side
    assert found.evidence["same to the pixel"] == (10 if exact else 0)
    assert set(found.scores) == {1 - turned / 128}


@pytest.mark.parametrize("way", range(6))
def test_turned_duplicates_are_found_but_are_no_wrong_label(way):
    made = twins(records(), labels=True, exact=False)
    codes = made.codes.copy()
    codes[100:110, 1] = list(turned(codes[:10, 1]))[way].view(">i8").ravel()
    codes[100:110, 2] = np.random.default_rng(9).integers(-(2**63), 2**63 - 1, 10)
    contrast = made.numbers["contrast"].copy()
    contrast[100:110] = 1.1 * contrast[:10]
    about = dataclasses.replace(made, codes=codes, numbers={**made.numbers, "contrast": contrast})
    (found,) = duplicates.check(about, DEFAULT)
    assert found.severity == "low"
    assert "several labels" not in found.title
    assert found.evidence["mirrored or turned"] == 10
    assert found.evidence["nearly the same"] == 0
    assert sorted(found.positions) == [*range(10), *range(100, 110)]
    split = np.where(np.arange(len(made)) < 100, "test", "train").astype(object)
    (across,) = duplicates.check(dataclasses.replace(about, groups={"split": split}), DEFAULT)
    assert across.severity == "high"
    assert across.evidence["mirrored or turned"] == 10
    apart = np.where(np.arange(len(made)) < 50, 0.1, 0.3)
    other = dataclasses.replace(about, numbers={**about.numbers, "contrast": apart})
    assert duplicates.check(other, DEFAULT) == []


def test_of_a_copy_and_a_turned_copy_only_the_first_has_a_wrong_label():
    made = twins(records(), labels=True, exact=False)
    codes, contrast = made.codes.copy(), made.numbers["contrast"].copy()
    codes[200:210, 1] = next(turned(codes[:10, 1])).view(">i8").ravel()
    values = {name: made.numbers[name].copy() for name in ("red", "green", "blue", "brightness", "contrast")}
    for column in values.values():
        column[200:210] = column[:10]
    values["contrast"][100:110] = contrast[:10]
    found = duplicates.check(dataclasses.replace(made, codes=codes, numbers={**made.numbers, **values}), DEFAULT)
    assert [one.evidence["images"] for one in found] == [20, 30]
    assert "several labels" in found[0].title
    split = np.where(np.arange(len(made)) < 150, "test", "train").astype(object)
    found = duplicates.check(
        dataclasses.replace(made, codes=codes, numbers={**made.numbers, **values}, groups={"split": split}), DEFAULT
    )
    assert [one.evidence["images"] for one in found] == [30, 20]
    assert found[0].evidence["mirrored or turned"] == 10


def test_duplicates_of_other_colours_or_of_nothing_are_none():
    made = twins(records(), exact=False)
    red = made.numbers["red"].copy()
    red[100:110] += 0.3
    assert duplicates.check(dataclasses.replace(made, numbers={**made.numbers, "red": red}), DEFAULT) == []
    entropy = np.where(np.arange(len(made)) < 10, 0.5, made.looks["entropy"])
    assert duplicates.check(dataclasses.replace(made, looks={**made.looks, "entropy": entropy}), DEFAULT) == []


def test_duplicates_with_other_labels_are_worth_more():
    (found,) = duplicates.check(twins(records(), labels=True), DEFAULT)
    assert found.severity == "medium"
    assert "several labels" in found.title
    assert "ant, bee" in found.evidence["commonest"] or "," in found.evidence["commonest"]
    many = Thresholds(many_mislabelled=0.01)
    assert duplicates.check(twins(records(), labels=True), many)[0].severity == "high"


@pytest.mark.parametrize("column", ["split", "Subset"])
def test_duplicates_across_splits_are_worth_most(column):
    made = twins(records())
    rows = np.arange(len(made))
    split = np.where((rows >= 100) & (rows < 400), "test", "train").astype(object)
    found = duplicates.check(dataclasses.replace(made, groups={column: split}), DEFAULT)
    assert [one.severity for one in found] == ["high"]
    assert found[0].evidence["of test, also elsewhere"] == pytest.approx(10 / 300)
    few = Thresholds(leaked=0.2)
    (found,) = duplicates.check(dataclasses.replace(made, groups={column: split}), few)
    assert found.severity == "medium"
    alike = np.array(["train"] * len(made), object)
    (found,) = duplicates.check(dataclasses.replace(made, groups={"camera": split, "set": alike}), DEFAULT)
    assert found.severity == "low"


FAULTS = {
    "next to empty": ("looks", "entropy", 0.3),
    "dark": ("looks", "brightest", 0.2),
    "bright": ("looks", "darkest", 0.98),
    "blurred": ("numbers", "sharpness", 0.001),
    "without colour": ("looks", "colour", 0.0),
    "of an odd size": ("numbers", "width", 900.0),
    "of odd proportions": ("numbers", "height", 8.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_spoiled_pictures_are_found_and_are_low(fault):
    made = records()
    where, name, value = FAULTS[fault]
    has = np.arange(len(made)) % 200 == 7
    changed = {**getattr(made, where), name: np.where(has, value, getattr(made, where)[name])}
    spoiled = dataclasses.replace(made, **{where: changed})
    found = {one.evidence["fault"]: one for one in picture_quality.check(spoiled, DEFAULT)}
    assert fault in found
    assert set(found) <= {fault, "of an odd size", "of odd proportions"}  # which go together
    own = dataclasses.replace(made, **{where: {**changed, name: np.where(made.label == 2, value, changed[name])}})
    told = [one.positions for one in picture_quality.check(own, DEFAULT) if one.evidence["fault"] == fault]
    assert not set(np.flatnonzero(made.label == 2)) & {*sum(told, ())}  # what a class is, is no fault
    assert sorted(found[fault].positions) == np.flatnonzero(has).tolist()
    assert {one.severity for one in found.values()} == {"low"}
    everywhere = {**getattr(made, where), name: np.full(len(made), value)}
    alike = dataclasses.replace(made, **{where: everywhere})
    assert fault not in {one.evidence["fault"] for one in picture_quality.check(alike, DEFAULT)}


def test_an_outlier_is_far_from_its_class():
    made = records()
    draws = np.random.default_rng(0)
    embedding = made.embedding.copy()
    strange = draws.permutation(len(made))[:8]
    other = draws.standard_normal((8, embedding.shape[1]))
    embedding[strange] = other / np.linalg.norm(other, axis=1, keepdims=True)
    (found,) = outliers.check(dataclasses.replace(made, embedding=embedding), DEFAULT)
    sure = found.positions[: found.evidence["images"]]
    assert set(sure) <= set(strange.tolist())
    assert found.evidence["images"] >= 6
    assert list(found.scores) == sorted(found.scores, reverse=True)


def strange_pictures(made, rows):
    """Records of which some pictures are of another kind, all alike, whatever their class."""
    numbers, looks = ({name: values.copy() for name, values in one.items()} for one in (made.numbers, made.looks))
    for name, value in {"contrast": 0.29, "sharpness": 1.8, "brightness": 0.5, "red": 0.5, "blue": 0.5}.items():
        numbers[name][rows] = value
    for name, value in {"entropy": 7.9, "colour": 0.95, "darkest": 0.4, "brightest": 0.6}.items():
        looks[name][rows] = value
    return dataclasses.replace(made, numbers=numbers, looks=looks)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_outliers_that_are_alike_do_not_hide_each_other(count):
    """Neither as pictures, wherever the model puts them, nor to the model."""
    made = records()
    rows = np.random.default_rng(1).permutation(len(made))[:count]
    (found,) = outliers.check(strange_pictures(made, rows), DEFAULT)
    assert set(found.positions[: found.evidence["images"]]) == set(rows.tolist())
    embedding = made.embedding.copy()
    embedding[rows] = -embedding.mean(0) / np.linalg.norm(embedding.mean(0))
    (found,) = outliers.check(dataclasses.replace(made, embedding=embedding), DEFAULT)
    assert set(found.positions[: found.evidence["images"]]) == set(rows.tolist())


def test_what_is_near_to_others_in_each_but_to_none_in_both_is_an_outlier():
    """Pictures of a colour that half of another class has: each alone is nothing."""
    made = records()
    rows = np.flatnonzero(made.target == 0)[7:12]
    numbers = {name: values.copy() for name, values in made.numbers.items()}
    numbers["red"][[*np.flatnonzero(made.target == 1)[::2], *rows]] += 2.0
    made = dataclasses.replace(made, numbers=numbers)
    (found,) = outliers.check(made, DEFAULT)
    assert set(found.positions[: found.evidence["images"]]) == set(rows.tolist())
    assert found.evidence["judged"] == "to the model and as pictures"
    for missing in ("embedding", "looks"):
        said = outliers.check(dataclasses.replace(made, **{missing: None}), DEFAULT)
        assert not any(set(one.positions[: one.evidence["images"]]) & set(rows.tolist()) for one in said)
    neither = dataclasses.replace(made, embedding=None, looks=None)
    assert outliers.check(neither, DEFAULT) == []
    assert "begun before" in outliers.lacking(neither)


def test_of_an_image_of_which_one_part_is_unknown_the_other_is_judged():
    made = records()
    rows = np.random.default_rng(1).permutation(len(made))[:4]
    odd = strange_pictures(made, rows)
    embedding = made.embedding.copy()
    embedding[rows[:2]] = np.nan
    (found,) = outliers.check(dataclasses.replace(odd, embedding=embedding), DEFAULT)
    assert set(found.positions[: found.evidence["images"]]) == set(rows.tolist())


@pytest.mark.parametrize("count", [20, 60])
def test_of_those_said_to_be_outliers_few_are_sound(count):
    """However many there are; and a set that has none is not given any (`test_a_clean_set_has_no_findings`)."""
    made = records()
    draws = np.random.default_rng(count)
    rows = draws.permutation(len(made))[:count]
    embedding = made.embedding.copy()
    other = 0.6 * embedding[rows] + 0.2 * draws.standard_normal((count, embedding.shape[1]))
    embedding[rows] = other / np.linalg.norm(other, axis=1, keepdims=True)
    (found,) = outliers.check(dataclasses.replace(made, embedding=embedding), DEFAULT)
    said = found.positions[: found.evidence["images"]]
    sound = len(set(said) - set(rows.tolist()))
    assert sound <= DEFAULT.sound_outliers * len(said)
    assert len(said) - sound >= 0.9 * count


def test_pictures_and_embeddings_of_nothing_are_no_outliers():
    made = records()
    embedding, looks = made.embedding.copy(), dict(made.looks)
    embedding[3], looks["entropy"] = np.nan, np.where(np.arange(len(made)) == 3, np.nan, looks["entropy"])
    assert outliers.check(dataclasses.replace(made, embedding=embedding, looks=looks), DEFAULT) == []
    looks = {name: np.full(len(made), np.nan) for name in looks}
    unknown = dataclasses.replace(made, embedding=np.full_like(embedding, np.nan), looks=looks)
    assert outliers.check(unknown, DEFAULT) == []
    looks = {name: np.ones(len(made)) for name in looks}
    same = dataclasses.replace(made, embedding=np.ones_like(embedding), looks=looks)
    assert outliers.check(same, DEFAULT) == []


def test_distances_are_to_the_nearest_others(monkeypatch):
    made = records().embedding[:150].astype(np.float64)
    apart = np.linalg.norm(made[:, None] - made[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    expected = np.sort(apart, axis=1)[:, 9]
    monkeypatch.setattr(outliers, "_BLOCK", 64)
    np.testing.assert_allclose(outliers.distances(made), expected, atol=1e-6)
    monkeypatch.setattr(outliers, "_MOST", 50)  # then among some of them, and still never itself
    found = outliers.distances(made)
    assert (found >= expected - 1e-9).all()
    assert np.isfinite(found).all()


def series(made, index, weight, lengths=6):
    """Embeddings of a class that is made of series of images."""
    draws = np.random.default_rng(1)
    embedding, rows = made.embedding.copy(), np.flatnonzero(made.label == index)
    common = draws.standard_normal((len(rows) // lengths + 1, embedding.shape[1])).repeat(lengths, 0)[: len(rows)]
    embedding[rows] += weight * common.astype(np.float32)
    return dataclasses.replace(made, embedding=embedding / np.linalg.norm(embedding, axis=1, keepdims=True))


def test_a_series_shows_in_the_order_of_images():
    (found,) = in_turn.check(series(records(), 2, 0.3), DEFAULT)
    assert found.class_index == 2
    assert found.severity == "low"
    assert found.evidence["classes"] == "1 of 4"
    assert list(found.scores) == sorted(found.scores, reverse=True)
    label = records().label
    assert set(label[list(found.positions)]) == {2}


def test_a_list_that_is_sorted_by_class_has_no_order_that_counts():
    made = records()
    order = np.argsort(made.label, kind="stable")
    numbers = {name: values[order] for name, values in made.numbers.items()}
    assert in_turn.check(dataclasses.replace(made, numbers=numbers, embedding=made.embedding[order]), DEFAULT) == []


def test_orders_make_no_false_claims():
    """At alpha 0.1 at most about one clean set in ten has a claim, however small the effect that is asked for."""
    eager = Thresholds(alpha=0.1, in_turn=-1.0)
    claims = sum(bool(in_turn.check(records(seed), eager)) for seed in range(100))
    assert claims <= 10 + 9  # three standard deviations of 100 draws at 0.1


def test_a_rare_class_is_named():
    made = records()
    label = made.numbers["label"].copy()
    label[np.flatnonzero(label == 3)[5:]] = 0
    (found,) = class_sizes.check(dataclasses.replace(made, numbers={**made.numbers, "label": label}), DEFAULT)
    assert found.evidence["of dog"] == 5
    assert sorted(found.positions) == np.flatnonzero(label == 3).tolist()


# From files to the report


def with_twins(folder):
    """A folder of photographs with one that is there twice, once with another label; and one that is dark."""
    sound(folder, 30)
    shutil.copy(folder / "cat" / "000.jpg", folder / "cat" / "copy.jpg")
    shutil.copy(folder / "dog" / "001.jpg", folder / "eel" / "copy.jpg")
    dark = np.random.default_rng(5).integers(0, 40, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(dark).save(folder / "cat" / "dark.png")
    return folder


def test_a_run_finds_and_shows_what_is_there_twice(tmp_path):
    data = with_twins(tmp_path / "photographs")
    run = xf.audit(Net().eval(), data, out=tmp_path / "run", preprocess=PREPROCESS, classes=CLASSES)
    assert {*LOOKS, *CODES} <= set(run.schema.names)
    found = {one.title: one for one in xf.audit.check(run, confirm=False)}
    uris = run.table(["uri"]).column("uri").to_pylist()
    told = {title: {uris[place] for place in one.positions} for title, one in found.items()}
    assert told["1 picture has several labels: 2 images"] == {"dog/001.jpg", "eel/copy.jpg"}
    assert told["1 picture is there more than once: 2 images"] == {"cat/000.jpg", "cat/copy.jpg"}
    assert told["1 picture is dark"] == {"cat/dark.png"}
    assert found["1 picture has several labels: 2 images"].severity == "high"
    page = xf.audit.report(run, data=data)
    assert "has several labels" in page.read_text()
    text = page.read_text()
    order = [one.title for one in xf.audit.check(run, confirm=False)]
    for number, title in enumerate(order):
        drawn = f'.photo.g{number}, .tile .g{number} {{ background-image: url("pictures/{number}-photos.jpg"); }}'
        assert (drawn in text) == (found[title].check in (duplicates.NAME, picture_quality.NAME))


def test_a_run_that_was_begun_before_is_read_and_says_what_is_not_checked(tmp_path):
    fake_audit.run(tmp_path)
    run = xf.audit.read(tmp_path)
    assert not {*LOOKS, *CODES} & set(run.schema.names)
    made = records_of(run, "A")
    assert made.looks is None
    assert made.codes is None
    found = xf.audit.check(run, confirm=False)
    for module in (duplicates, picture_quality):
        assert "begun before" in found.skipped[module.NAME]


def test_a_run_that_was_begun_before_goes_on_as_it_began(tmp_path):
    """The plan of an older version, of which half of the shards are there."""
    data, net = sound(tmp_path / "photographs", 40), Net().eval()
    given = {"model": net, "data": data, "preprocess": PREPROCESS, "classes": CLASSES, "shard_size": 16}
    xf.audit(**given, out=tmp_path / "new", shard=(0, 1000))
    old = json.loads((tmp_path / "new" / "plan.json").read_text())
    del old["fixed"]["decoding"]["looks"]
    from xai_fast.audit.plan import Plan

    old["fingerprint"] = Plan(old["fixed"], old["about"]).fingerprint
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(tmp_path / "new" / "manifest.parquet", folder)
    (folder / "plan.json").write_text(json.dumps(old))
    half = xf.audit(**given, out=folder, shard=(0, 2))
    assert not half.complete
    run = xf.audit(**given, out=folder)
    assert run.complete
    assert not {*LOOKS, *CODES} & set(run.schema.names)
    assert run.table().num_rows == 40
    again = xf.audit(**given, out=tmp_path / "new")
    assert {*LOOKS, *CODES} <= set(again.schema.names)
    assert again.table(run.schema.names).equals(run.table())
    assert contents(folder)

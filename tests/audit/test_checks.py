"""What checks say of records whose truth is known: planted faults are found, and clean sets are left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_records import CORNER, auroc, maps, records

from xai_fast.audit.checks import clusters, errors, image_properties, metadata, mislabelled, shortcut
from xai_fast.audit.checks.cues import ColourCue, CornersCue, RegionCue, TraceCue, cue_from
from xai_fast.audit.checks.finding import Confirmation, Finding, ranked
from xai_fast.audit.checks.regions import REGIONS, Box, masses, on_grid, shares
from xai_fast.audit.checks.statistics import discoveries, holm, mean_interval, more_often, rank_biserial
from xai_fast.audit.checks.storing import Findings, findings_of
from xai_fast.audit.checks.thresholds import DEFAULT, Thresholds


@pytest.mark.parametrize("marked", [0.3, 0.5, 1.0])
def test_a_planted_corner_is_found(marked):
    made, stamped, _ = records(marked=marked)
    (found,) = shortcut.check(made, DEFAULT)
    assert found.evidence["class"] == "bee"
    assert found.evidence["region"] == CORNER
    assert set(np.flatnonzero(stamped)) <= set(found.positions)
    assert found.severity == "low"  # until it is confirmed
    assert found.confirmation.state == "not tested"


def test_samples_of_a_shortcut_are_those_that_have_it():
    made, stamped, _ = records(marked=0.5)
    (found,) = shortcut.check(made, DEFAULT)
    scores = np.zeros(len(made))
    scores[list(found.positions)] = found.scores
    own = made.target == 1
    assert auroc(scores[own], stamped[own]) >= 0.95
    assert list(found.scores) == sorted(found.scores, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_set_has_neither_shortcut_nor_wrong_labels(seed):
    made, *_ = records(seed=seed)
    assert shortcut.check(made, DEFAULT) == []
    assert mislabelled.check(made, DEFAULT) == []


def test_many_tests_make_no_false_claims():
    """Of sets without any fault at most one in ten has a claim at alpha 0.1, whatever its effect; uncorrected most."""
    eager = Thresholds(alpha=0.1, least_share=0.0, least_density=0.0)
    claimed, uncorrected = 0, 0
    for seed in range(100):
        made, *_ = records(400, seed=seed)
        claimed += bool(shortcut.check(made, eager))
        uncorrected += any(test.p < eager.alpha for test in shortcut._tests(made, eager))
    assert claimed <= 10 + 9  # three standard deviations of 100 draws at 0.1
    assert uncorrected > 50


def test_wrong_labels_are_found():
    made, _, exchanged = records(flipped=0.03)
    (found,) = mislabelled.check(made, DEFAULT)
    count = int(exchanged.sum())
    assert exchanged[list(found.positions[:count])].mean() >= 0.9
    assert found.severity == "high"
    assert found.confirmation.state == "no cue"


def test_labels_learned_by_heart_are_found_by_the_embedding():
    """A model that gives every label as it was told; the neighbours know better."""
    made, _, exchanged = records(flipped=0.03)
    numbers = {**made.numbers, "prediction": made.numbers["label"], "label_probability": np.full(len(made), 0.99)}
    by_heart, *_ = records(flipped=0.03, numbers={**numbers, "probability": numbers["label_probability"]})
    doubt = mislabelled.doubts(by_heart, by_heart.judged)
    first = np.argsort(-doubt)[: int(exchanged.sum())]
    assert exchanged[first].mean() >= 0.9


def test_classes_that_resemble_each_other_throw_no_doubt_on_labels(monkeypatch):
    """Two classes of one kind, whose images the embedding and the model cannot tell apart, and exchanged labels."""
    made, _, exchanged = records(flipped=0.03)
    true, draws = made.target, np.random.default_rng(0)
    embedding = made.embedding.copy()
    rows = np.flatnonzero(true <= 1)
    embedding[rows] = embedding[draws.permutation(rows)]
    doubtful, *_ = records(flipped=0.03, embedding=embedding)
    count = int(exchanged.sum())
    first = np.argsort(-mislabelled.doubts(doubtful, doubtful.judged))[:count]
    assert exchanged[first].mean() >= 0.9
    monkeypatch.setattr(mislabelled, "_MOST", 500)  # then of some of the images, and still never the label itself
    monkeypatch.setattr(mislabelled, "_BLOCK", 256)
    first = np.argsort(-mislabelled.doubts(doubtful, doubtful.judged))[:count]
    assert exchanged[first].mean() >= 0.9


@pytest.mark.parametrize("known", [0, 1, 2, 20])
def test_a_few_known_embeddings_are_no_neighbours(known):
    """Where the model's embedding is unknown, or nearly everywhere, it is asked alone."""
    made, *_ = records(flipped=0.03)
    embedding = np.full_like(made.embedding, np.nan)
    embedding[:known] = made.embedding[:known]
    unknown, *_ = records(flipped=0.03, embedding=embedding)
    alone, *_ = records(flipped=0.03, embedding=None)
    np.testing.assert_array_equal(mislabelled.doubts(unknown, unknown.judged), mislabelled.doubts(alone, alone.judged))


def test_neighbours_are_the_nearest_and_never_itself():
    made, *_ = records(200)
    every = np.arange(200)
    alike = made.embedding @ made.embedding.T
    np.fill_diagonal(alike, -np.inf)
    pool = mislabelled._pooled(made.embedding, made.label, every)
    assert pool.nearest == 12  # a fourth of the fifty of a class
    found = mislabelled._nearest(pool, made.embedding, every)
    np.testing.assert_array_equal(np.sort(found, 1), np.sort(np.argsort(-alike, 1)[:, :12], 1))
    few = mislabelled._pooled(made.embedding, made.label, np.arange(0, 200, 4))
    found = few.rows[mislabelled._nearest(few, made.embedding, every)]
    assert set(found.ravel().tolist()) <= set(range(0, 200, 4))
    assert not (found == every[:, None]).any()
    moved = mislabelled._nearest(few, made.embedding[[8]], np.array([9]))  # of another image at the same place
    assert 8 in few.rows[moved]


def test_without_labels_nothing_is_mislabelled():
    made, *_ = records()
    blind, *_ = records(numbers={**made.numbers, "label": np.full(len(made), np.nan)})
    assert mislabelled.check(blind, DEFAULT) == []


def test_masses_are_exact_where_boxes_cut_cells():
    even = shares(np.ones((1, 7, 5)))
    boxes = [*REGIONS.values(), Box(0.11, 0.23, 0.57, 0.91)]
    np.testing.assert_allclose(masses(even, boxes)[0], [box.area for box in boxes], rtol=1e-6)
    np.testing.assert_allclose(on_grid(even), 1 / 64, rtol=1e-6)
    assert np.isnan(shares(np.full((1, 3, 3), -1.0))).all()


def test_discoveries_against_their_definition():
    assert discoveries(np.array([0.9, 0.001, 0.02, 0.021]), 0.05) == 3  # 0.02 alone is above 2/4 of it
    assert discoveries(np.array([0.9, 0.3, 0.5]), 0.05) == 0


def test_holm_against_its_definition():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    assert (holm([0.5, 0.9]) == 1).all()


def test_statistics_against_counting():
    assert more_often(3, 3, 0, 3) == pytest.approx(1 / 20)  # one of the 20 ways to choose 3 of 6
    assert more_often(0, 3, 2, 3) == pytest.approx(1)
    assert rank_biserial(np.array([2.0, 3]), np.array([1.0, 2]))[0] == pytest.approx((3 - 0) / 4)
    assert mean_interval(np.full(9, 0.25), 0.95) == (0.25, 0.25)


def test_intervals_of_means_cover():
    """Of 95 % intervals about 95 in 100 hold the truth."""
    draws = np.random.default_rng(0)
    covered = [
        low <= 0.3 <= high for low, high in (mean_interval(draws.random(60) < 0.3, 0.95, 500) for _ in range(200))
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("name", REGIONS)
def test_a_region_is_taken_out_and_put_in(name):
    cue = RegionCue(REGIONS[name])
    draws = np.random.default_rng(0)
    picture, donor = draws.integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    rows, columns = cue.box.pixels(20, 20)
    outside = np.ones((20, 20), bool)
    outside[rows, columns] = False
    before = picture.copy()
    inserted = cue.inserted(picture, donor)
    assert (inserted[rows, columns] == donor[rows, columns]).all()
    removed = cue.removed(picture)
    for changed in (inserted, removed, cue.inserted_instead(picture, donor)):
        assert (changed[outside] == picture[outside]).all()
        assert (changed[rows, columns] != picture[rows, columns]).any()
    instead = cue.removed_instead(picture)
    assert (instead[rows, columns] == picture[rows, columns]).all()
    assert (instead != picture).any()
    assert (picture == before).all()
    assert cue_from(cue.described()) == cue


def test_a_cast_is_taken_out_and_put_in():
    cue = ColourCue((0.2, 0.0, -0.1))
    picture = np.full((4, 4, 3), 100, np.uint8)
    assert cue.inserted(picture, picture)[0, 0].tolist() == [151, 100, 74]
    assert cue.removed(picture)[0, 0].tolist() == [49, 100, 126]
    assert cue_from(cue.described()) == cue


def test_what_is_not_confirmed_comes_last_and_what_is_grave_first():
    def made(name, severity, state, strength=1.0):
        return Finding(name, name, severity, strength, confirmation=Confirmation(state))

    found = [
        made("refuted", "low", "not confirmed", 9),
        made("untested", "low", "not tested", 8),
        made("labels", "high", "no cue"),
        made("stamp", "high", "confirmed"),
        made("weak", "medium", "confirmed"),
        made("strong", "medium", "confirmed", 2),
    ]
    assert [one.check for one in ranked(found)] == ["stamp", "labels", "strong", "weak", "untested", "refuted"]


def test_findings_are_kept(tmp_path):
    made, *_ = records(marked=0.5, flipped=0.03)
    found = (*shortcut.check(made, DEFAULT), *mislabelled.check(made, DEFAULT))
    found = tuple(dataclasses.replace(one, rivals=()) for one in found)  # as confirmation leaves them
    findings = Findings(found, "GradCAM", len(made), 2, True)
    findings.save(tmp_path)
    assert findings_of(tmp_path) == findings
    with pytest.raises(ValueError, match=r"xf\.audit\.check"):
        findings_of(tmp_path / "nowhere")


def cast(made, part, seed=0, *, size=0.2):
    """The numbers of records with a red cast in part of class 1, and which have it."""
    draws = np.random.default_rng(seed)
    has = (made.target == 1) & (draws.random(len(made)) < part)
    moved = {**made.numbers}
    tint = draws.normal(0, 0.02, (3, len(made)))
    for name, own in zip(("red", "green", "blue"), tint, strict=True):
        moved[name] = made.numbers["brightness"] + own
    moved["red"] = np.where(has, moved["red"] + size, moved["red"])
    return moved, has


def test_a_cast_in_part_of_a_class_is_a_cue():
    made, *_ = records()
    numbers, has = cast(made, 0.4)
    tinted, *_ = records(numbers=numbers)
    (found,) = image_properties.check(tinted, DEFAULT)
    assert found.evidence["class"] == "bee"
    assert found.evidence["property"] == "red cast"
    assert found.severity == "low"
    assert has[list(found.positions)].mean() > 0.9
    red, green, blue = found.cue.shift
    assert red == pytest.approx(0.2, abs=0.05)
    assert max(abs(green), abs(blue)) < 0.05


@pytest.mark.parametrize("part", [0.8, 1.0])
def test_what_most_of_a_class_has_is_no_cue(part):
    """Pages are bright; to take that away would be to take away the page, whatever else is among them."""
    made, *_ = records()
    numbers, _ = cast(made, part)
    tinted, *_ = records(numbers=numbers)
    (found,) = image_properties.check(tinted, DEFAULT)
    assert found.cue is None
    assert "one whole" in found.confirmation.note


@pytest.mark.parametrize("module", [image_properties, metadata, clusters, errors], ids=lambda module: module.NAME)
@pytest.mark.parametrize("seed", range(3))
def test_a_clean_set_has_no_findings(module, seed):
    made, *_ = records(seed=seed)
    draws = np.random.default_rng(seed)
    groups = {"scanner": np.array(["a", "b", "c"], object)[draws.integers(0, 3, len(made))]}
    wrong = draws.random(len(made)) < 0.1
    numbers = {**made.numbers, "prediction": np.where(wrong, (made.target + 1) % 4, made.target).astype(float)}
    assert module.check(records(seed=seed, groups=groups, numbers=numbers)[0], DEFAULT) == []


def test_a_value_of_metadata_that_errs_is_found():
    made, *_ = records()
    draws = np.random.default_rng(0)
    site = draws.integers(0, 2, len(made))
    wrong = (draws.random(len(made)) < 0.05) | ((site == 1) & (made.target == 2) & (draws.random(len(made)) < 0.5))
    numbers = {**made.numbers, "prediction": np.where(wrong, (made.target + 1) % 4, made.target).astype(float)}
    groups = {"site": np.array(["north", "south"], object)[site]}
    found = errors.check(records(numbers=numbers, groups=groups)[0], DEFAULT)
    (worst,) = [one for one in found if one.severity == "high"]
    assert worst.title.startswith("cat with site = south: ")
    assert worst.class_index == 2
    assert wrong[list(worst.positions)].all()


def test_metadata_that_tells_the_label_is_found():
    made, *_ = records()
    draws = np.random.default_rng(0)
    at = np.where((made.target == 3) & (draws.random(len(made)) < 0.8), 0, draws.integers(0, 5, len(made)))
    day = draws.integers(0, 2, len(made))
    groups = {"camera": np.array(list("vwxyz"), object)[at], "day": np.array(list("ab"), object)[day]}
    (found,) = metadata.check(records(groups=groups)[0], DEFAULT)
    assert (found.evidence["column"], found.evidence["value"], found.evidence["class"]) == ("camera", "v", "dog")


def test_where_the_model_looks_when_it_is_wrong():
    made, stamped, _ = records(marked=0.3)
    numbers = {**made.numbers, "prediction": np.where(stamped, 0, made.target).astype(float)}
    found = errors.check(records(marked=0.3, numbers=numbers)[0], DEFAULT)
    looks = [one for one in found if CORNER in one.title]
    assert len(looks) == 1
    assert stamped[list(looks[0].positions)].all()


def test_a_group_that_is_explained_differently_and_errs_is_found():
    made, stamped, _ = records(marked=0.3, heat_of_mark=30)
    numbers = {**made.numbers, "label": np.where(stamped, 0, made.target).astype(float)}
    found = clusters.check(records(marked=0.3, heat_of_mark=30, numbers=numbers)[0], DEFAULT)
    assert [one.evidence["class"] for one in found] == ["bee"]
    assert found[0].evidence["errors"] > 0.9
    assert stamped[list(found[0].positions)].mean() > 0.9


def test_a_group_that_looks_at_one_place_has_a_cue():
    made, stamped, _ = records(marked=0.3, heat_of_mark=30)
    (found,) = clusters.check(made, DEFAULT)
    assert stamped[list(found.positions)].mean() > 0.9
    corner = REGIONS[CORNER]
    assert found.cue.box.meets(corner)
    assert found.cue.box.area < 1 / 6


def test_groups_are_shown_with_their_means_and_errors():
    made, stamped, _ = records(marked=0.3, heat_of_mark=30)
    numbers = {**made.numbers, "label": np.where(stamped, 0, made.target).astype(float)}
    made = records(marked=0.3, heat_of_mark=30, numbers=numbers)[0]
    found = clusters.groups(made, DEFAULT)
    first = found[0]
    assert first.class_index == 1
    assert first.errors > 0.9
    assert first.labels[1] == 0
    assert stamped[list(first.positions)].mean() > 0.9
    assert np.argmax(first.grid) in (54, 55, 62, 63)  # the corner's cells
    for one in found:
        assert sum(one.grid) == pytest.approx(1, abs=1e-3)
        assert one.images >= len(one.positions) > 0
    assert {one.class_index for one in found} == {0, 1, 2, 3}
    by_class = [sum(one.images for one in found if one.class_index == index) for index in range(4)]
    assert max(by_class) <= 300


def test_corners_are_taken_out_and_put_in_together():
    cue = CornersCue(0.3)
    picture, donor = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    before = picture.copy()
    corners = np.zeros((20, 20), bool)
    for box in cue.corners:
        corners[box.pixels(20, 20)] = True
    assert corners.sum() == 4 * 36
    inserted, removed = cue.inserted(picture, donor), cue.removed(picture)
    assert (inserted[corners] == donor[corners]).all()
    for changed in (inserted, removed, cue.inserted_instead(picture, donor)):
        assert (changed[~corners] == picture[~corners]).all()
        assert (changed[corners] != picture[corners]).any()
    instead = cue.removed_instead(picture)
    assert (instead[corners] == picture[corners]).all()
    assert (instead != picture).any()
    assert (picture == before).all()
    assert cue_from(cue.described()) == cue


def test_a_trace_is_taken_out_and_put_in():
    pattern = np.full((4, 4, 3), 7.0, np.float16)
    cue = TraceCue((4, 4), pattern.tobytes(), (-pattern).tobytes())
    picture = np.full((4, 4, 3), 100, np.uint8)
    edits = (cue.inserted(picture, picture), cue.inserted_instead(picture, picture), cue.removed(picture))
    assert [int(edit[0, 0, 0]) for edit in edits] == [107, 93, 93]
    assert (cue.removed_instead(picture) == 107).all()
    assert cue_from(cue.described()) == cue


def test_a_mark_that_is_now_in_one_corner_and_now_in_another_is_found():
    made, *_ = records()
    draws = np.random.default_rng(0)
    heat = maps(len(made), draws)
    marked = np.flatnonzero((made.target == 1) & (draws.random(len(made)) < 0.4))
    for row in marked:
        top, left = draws.choice([0, 9], 2)
        heat[row, top : top + 3, left : left + 3] += 30
    spread = shares(heat)
    (found,) = shortcut.check(records(regions=masses(spread, list(REGIONS.values())), grid=on_grid(spread))[0], DEFAULT)
    assert (found.evidence["class"], found.evidence["region"]) == ("bee", "one corner or another")
    assert np.isin(marked, found.positions).mean() > 0.9
    assert isinstance(found.cue, CornersCue)

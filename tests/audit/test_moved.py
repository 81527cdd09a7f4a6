"""Labels learned by heart: found where a model no longer knows its picture, which is moved by a few pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from made_records import records
from photo_folders import PREPROCESS, Net, sound

import xai_fast as xf
from xai_fast.audit.checks import mislabelled
from xai_fast.audit.checks import moved as checked
from xai_fast.audit.checks.moved import Moved, asked, moved
from xai_fast.audit.checks.records import records_of, unit
from xai_fast.audit.checks.subject import NoSubjectError, subject_of
from xai_fast.audit.checks.thresholds import DEFAULT


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_a_picture_is_moved_by_a_sixteenth_and_keeps_its_border(down, right):
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    found = moved(picture, down, right)
    assert found.shape == picture.shape
    for y in range(32):
        for x in range(48):
            source = picture[min(max(y - 2 * down, 0), 31), min(max(x - 3 * right, 0), 47)]
            np.testing.assert_array_equal(found[y, x], source)


def by_heart(flipped=0.03, seed=0, sure=0.97):
    """Records of a model that gives every label as it was told, and puts every image among those of its label."""
    made, _, exchanged = records(flipped=flipped, seed=seed)
    draws = np.random.default_rng(seed)
    centres = np.stack([made.embedding[made.target == one].mean(0) for one in range(4)])
    embedding = centres[made.label] + 0.05 * draws.standard_normal(made.embedding.shape)
    sure = np.full(len(made), sure)
    numbers = {**made.numbers, "prediction": made.numbers["label"], "label_probability": sure, "probability": sure}
    return dataclasses.replace(made, numbers=numbers, embedding=unit(embedding)), made, exchanged


def answers_of(truth, *, rows=None, rivals=0.0):
    """What a model might say of moved pictures that knows them by what they show; a share of class 0 looks like 1."""
    rows = np.arange(len(truth)) if rows is None else rows
    draws = np.random.default_rng(1)
    shown = truth.target[rows].copy()
    shown[(shown == 0) & (draws.random(len(rows)) < rivals)] = 1
    probabilities = np.full((len(rows), 4), 0.05)
    probabilities[np.arange(len(rows)), shown] = 0.85
    embeddings = tuple(unit(truth.embedding[rows] + 0.02 * draws.standard_normal((len(rows), 16))) for _ in range(4))
    return Moved(rows, np.ones(len(rows), bool), probabilities, embeddings)


def first(made, doubt, exchanged):
    return exchanged[np.argsort(-doubt, kind="stable")[: int(exchanged.sum())]].mean()


def test_labels_learned_by_heart_are_found_by_moved_pictures_alone():
    known, truth, exchanged = by_heart()
    assert first(known, mislabelled.doubts(known, known.judged), exchanged) < 0.2  # by chance
    again = answers_of(truth)
    assert first(known, mislabelled.doubts(known, known.judged, again), exchanged) >= 0.95
    without = dataclasses.replace(again, embeddings=())
    assert first(known, mislabelled.doubts(known, known.judged, without), exchanged) >= 0.95
    alone = dataclasses.replace(known, embedding=None)
    assert first(alone, mislabelled.doubts(alone, alone.judged, without), exchanged) >= 0.95


def test_what_a_label_learned_by_heart_looks_like_is_what_the_moved_picture_does():
    known, truth, exchanged = by_heart()
    looks = mislabelled._looks_like(known, answers_of(truth))
    np.testing.assert_array_equal(looks, truth.target)
    known, truth, exchanged = by_heart(sure=0.5)
    (found,) = mislabelled._found(known, DEFAULT, answers_of(truth))
    labelled, other = found.evidence["commonest"].removeprefix("labelled ").split(", looks like ")
    assert labelled != other
    assert found.evidence["images"] >= 0.9 * exchanged.sum()


def test_a_class_that_is_taken_for_another_when_moved_throws_no_doubt_on_its_labels():
    known, truth, exchanged = by_heart()
    again = answers_of(truth, rivals=0.6)
    doubt = mislabelled.doubts(known, known.judged, again)
    assert first(known, doubt, exchanged) >= 0.9
    assert (doubt[~exchanged] < DEFAULT.doubt).all()


def test_who_is_not_asked_keeps_what_is_stored():
    known, truth, _ = by_heart()
    rows = np.arange(0, len(known), 3)
    stored = mislabelled.doubts(known, known.judged)
    found = mislabelled.doubts(known, known.judged, answers_of(truth, rows=rows))
    others = np.setdiff1d(np.arange(len(known)), rows)
    np.testing.assert_array_equal(found[others], stored[others])
    assert (found[rows] != stored[rows]).any()
    nobody = Moved(np.empty(0, np.int64), np.empty(0, bool), np.empty((0, 0)), ())
    np.testing.assert_array_equal(mislabelled.doubts(known, known.judged, nobody), stored)


def test_labels_that_the_model_does_not_know_are_not_asked_about():
    known, truth, _ = by_heart()
    again = answers_of(truth)
    fewer = dataclasses.replace(again, probabilities=again.probabilities[:, :3])
    found, stored = (mislabelled.doubts(known, known.judged, one) for one in (fewer, None))
    np.testing.assert_array_equal(found[known.label == 3], stored[known.label == 3])


def test_of_too_many_the_doubtful_are_asked_and_as_many_that_are_drawn():
    doubt = np.random.default_rng(0).random(1000)
    doubt[:100] = np.nan
    rows, fair = checked._chosen(doubt, 200)
    assert len(set(rows.tolist())) == 200
    assert np.isfinite(doubt[rows]).all()
    assert fair.sum() == 100
    left = np.setdiff1d(np.arange(100, 1000), rows)
    assert doubt[rows[~fair]].min() > doubt[left].max()
    assert abs(doubt[rows[fair]].mean() - 0.5) < 0.1
    rows, fair = checked._chosen(doubt, 900)
    assert len(rows) == 900
    assert fair.all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved")
    data = sound(folder / "photographs", 70)
    model = Net().eval()
    names = ("cat", "dog", "eel")
    return (
        xf.audit(model, data, out=folder / "run", preprocess=PREPROCESS, classes=names, methods="GradCAM"),
        model,
        data,
    )


def test_answers_are_the_models_own(run):
    found, model, data = run
    made = records_of(found)
    with subject_of(found, model, data, PREPROCESS) as subject:
        again = asked(made, np.zeros(len(made)), subject, DEFAULT)
        pictures = subject.pictures(made.position.tolist())
    assert again.rows.tolist() == list(range(70))  # more than are held at once
    assert len(again.embeddings) == 4
    inside = torch.nn.Sequential(model.conv, torch.nn.ReLU(), model.second)
    for row in (0, 63, 64, 69):
        mean = np.zeros(3)
        for place, move in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
            values = torch.from_numpy(moved(pictures[int(made.position[row])], *move)).permute(2, 0, 1) / 255
            inputs = (values - torch.tensor(PREPROCESS.mean)[:, None, None]) / torch.tensor(PREPROCESS.std)[
                :, None, None
            ]
            with torch.no_grad():
                mean += model(inputs[None].float()).softmax(1)[0].numpy() / 4
                embedding = inside(inputs[None].float()).mean((2, 3)).numpy()
            np.testing.assert_allclose(again.embeddings[place][row], unit(embedding)[0], atol=1e-4)
        np.testing.assert_allclose(again.probabilities[row], mean, atol=1e-5)


def test_embeddings_that_are_read_otherwise_are_not_compared(run):
    found, model, data = run
    made = records_of(found)
    other = dataclasses.replace(made, embedding=np.roll(made.embedding, 1, axis=1))
    with subject_of(found, model, data, PREPROCESS) as subject:
        assert asked(other, np.zeros(len(made)), subject, DEFAULT).embeddings == ()
        alone = dataclasses.replace(subject, layer=None)
        assert asked(made, np.zeros(len(made)), alone, DEFAULT).embeddings == ()


def test_a_model_without_scores_leaves_findings_as_they_are(run, monkeypatch):
    found, model, data = run
    made = records_of(found)

    def none(*_):
        raise NoSubjectError("no class scores")

    with subject_of(found, model, data, PREPROCESS) as subject:
        monkeypatch.setattr(type(subject), "answers", none)
        assert mislabelled.asked_again([], made, subject, DEFAULT) == []


def test_a_check_with_the_model_asks_again(run):
    found, model, data = run
    plain = xf.audit.check(found, model=model, data=data, preprocess=PREPROCESS, confirm=False)
    again = xf.audit.check(found, model=model, data=data, preprocess=PREPROCESS)
    told = {
        name: [one.evidence["asked again, moved by some pixels"] for one in findings if one.check == "mislabelled"]
        for name, findings in (("plain", plain), ("again", again))
    }
    assert told["plain"] in ([], [0])
    assert told["again"] in ([], [70])

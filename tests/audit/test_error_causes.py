"""What pushes wrong answers from the truth: found and proved on a model whose cause is known, silent without one."""

from __future__ import annotations

import dataclasses

import made_records
import numpy as np
import pytest
import torch
from PIL import Image

import xai_fast as xf
from xai_fast.audit.checks import error_causes
from xai_fast.audit.checks.regions import masses, shares
from xai_fast.audit.checks.thresholds import DEFAULT, Thresholds

SIDE = 24
PREPROCESS = xf.Preprocess(resize=SIDE, crop=SIDE)
CLASSES = ("plain", "red")


class Redness(torch.nn.Module):
    """Two classes: "red", by how red all positions are together, or else "plain"."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = torch.nn.Conv2d(3, 2, 3, padding=1, bias=False), torch.nn.ReLU()
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[1, :, 1, 1] = torch.tensor([1.0, -1.0, -1.0])
        self.register_buffer("bias", torch.tensor([5.0, 0.0]))

    def forward(self, x):
        return self.relu(self.conv(x)).sum((2, 3)) / 50 + self.bias


def photographs(folder, stamp):
    """Noise; of what is labelled plain one in three looks red, by a stamp in a corner or all over."""
    draws = np.random.default_rng(0)
    for n in range(240):
        name = CLASSES[n % 4 == 0]
        pixels = draws.integers(60, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        if name == "red" or n % 3 == 0:
            if stamp and name == "plain":
                pixels[:6, :6] = (255, 0, 0)
            else:
                pixels[..., 0] += 45
        path = folder / name / f"{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def checked(folder, stamp):
    model, data = Redness().eval(), photographs(folder / "photographs", stamp)
    given = {"model": model, "data": data, "preprocess": PREPROCESS}
    run = xf.audit(**given, methods=xf.GradCAM(model, layer="relu"), out=folder / "run", classes=CLASSES)
    frame = run.frame()
    mistaken = frame[(frame.label == 0) & (frame.prediction == 1)].index
    assert len(mistaken) == 60, "the model is not what the test takes it for"
    return run, given, set(mistaken)


def test_the_cause_of_errors_is_found_and_proved(tmp_path):
    run, given, mistaken = checked(tmp_path, stamp=True)
    found = xf.audit.check(run, **given)
    (one,) = [one for one in found if one.title.startswith("plain taken for red")]
    assert one.title.endswith("at the top left corner")
    assert one.check == "errors"
    assert set(one.positions) == mistaken
    assert one.evidence["rank-biserial correlation"] > 0.99
    assert one.confirmation.state == "confirmed"
    removed = [change for change in one.confirmation.changes if change.edit == "remove"]
    assert removed[0].what == "probability of red"
    assert removed[0].effect < -0.5
    assert removed[1].what == "accuracy"
    assert removed[1].effect > 0.9, "without the stamp they are right"


def test_errors_without_a_place_have_no_cause(tmp_path):
    run, given, _ = checked(tmp_path, stamp=False)
    found = xf.audit.check(run, **given)
    assert not [one for one in found if " taken for " in one.title]
    assert "what pushes answers to errors" not in found.skipped
    without = xf.audit.check(run)
    assert "the model was not asked: the run was begun from Python" in without.skipped["what pushes answers to errors"]


def test_the_pushes_are_those_of_the_method(tmp_path):
    from xai_fast.audit.checks.records import records_of
    from xai_fast.audit.checks.subject import subject_of

    run, given, mistaken = checked(tmp_path, stamp=True)
    rows = [*sorted(mistaken)[:3], 1, 2]
    with subject_of(run, **given) as subject:
        found = error_causes._pushes(records_of(run), subject, rows)
    frame = run.frame()
    photos = [Image.open(given["data"] / frame.uri[row]) for row in rows]
    inputs = torch.stack([PREPROCESS(photo) for photo in photos])
    method = xf.ErrorAttribution(Redness().eval(), kind="activation")
    maps = method(inputs, target=torch.tensor(frame.label[rows].to_numpy()), resolution="native").heatmap()
    expected = masses(shares(maps.numpy()), list(error_causes._PLACES.values()))
    np.testing.assert_allclose(np.stack([found[row] for row in rows]), expected, atol=1e-4)


def test_wrong_and_right_answers_that_are_pushed_alike_are_seldom_told_apart(monkeypatch):
    """At alpha 0.1 and no least effect at most one set in ten has a claim."""
    eager, claimed = Thresholds(alpha=0.1, property_effect=0.0), 0
    for seed in range(60):
        draws = np.random.default_rng(seed)
        made = made_records.records(800, seed=seed)[0]
        wrong = draws.random(len(made)) < 0.2
        numbers = {**made.numbers, "prediction": np.where(wrong, (made.target + 1) % 4, made.target).astype(float)}
        made = dataclasses.replace(made, numbers=numbers)
        places = list(error_causes._PLACES.values())
        mass = masses(shares(made_records.maps(len(made), draws)), places)
        monkeypatch.setattr(error_causes, "_pushes", lambda _r, _s, rows, mass=mass: {row: mass[row] for row in rows})
        claimed += bool(error_causes.found(made, None, eager))
    assert claimed <= 6 + 7  # three standard deviations of 60 draws at 0.1


def test_a_model_that_it_does_not_apply_to_is_said(tmp_path, monkeypatch):
    run, given, _ = checked(tmp_path, stamp=True)

    def refuses(*_):
        raise ValueError("no layer of it is a map")

    monkeypatch.setattr(error_causes, "_pushes", refuses)
    assert xf.audit.check(run, **given).skipped["what pushes answers to errors"] == "no layer of it is a map"


@pytest.mark.parametrize("held", [0, 5])
def test_few_errors_are_not_asked_about(held):
    made = made_records.records(400)[0]
    wrong = np.zeros(len(made), bool)
    wrong[np.flatnonzero((made.target == 2) & ~made.held_out)[:9]] = True
    wrong[np.flatnonzero((made.target == 2) & made.held_out)[:held]] = True
    numbers = {**made.numbers, "prediction": np.where(wrong, 3, made.target).astype(float)}
    assert error_causes._mistakes(dataclasses.replace(made, numbers=numbers), DEFAULT) == []

"""Runs are read for the checks, and claims are proved on a model whose truth is known."""

from __future__ import annotations

import fake_audit
import numpy as np
import pytest
import torch
from photo_folders import PREPROCESS as SMALL
from photo_folders import Net, sound
from PIL import Image
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.audit.checks.confirm import confirmed
from xai_fast.audit.checks.cues import RegionCue
from xai_fast.audit.checks.finding import Confirmation, Finding
from xai_fast.audit.checks.records import records_of
from xai_fast.audit.checks.regions import REGIONS, masses, shares
from xai_fast.audit.checks.storing import findings_of
from xai_fast.audit.checks.thresholds import DEFAULT
from xai_fast.audit.reading import read
from xai_fast.cli.app import app

SIDE = 24
PREPROCESS = xf.Preprocess(resize=SIDE, crop=SIDE)


class LooksAtTheCorner(torch.nn.Module):
    """Two classes: "marked", by how red the bottom right corner is, or else "plain". The rest is never looked at."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.relu = torch.nn.ReLU()
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[1, :, 1, 1] = torch.tensor([1.0, -1.0, -1.0])
        weight = torch.zeros(1, 1, SIDE, SIDE)
        weight[..., -7:, -7:] = 1 / 10
        self.register_buffer("where", weight)
        self.register_buffer("bias", torch.tensor([2.0, 0.0]))

    def forward(self, x):
        return (self.relu(self.conv(x)) * self.where).sum((2, 3)) + self.bias


def photographs(folder, count=160):
    """Noise, half of it with a red corner, by its label."""
    draws = np.random.default_rng(0)
    for n in range(count):
        name = ("plain", "marked")[n % 2]
        pixels = draws.integers(60, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        if name == "marked":
            pixels[-6:, -6:] = (255, 0, 0)
        path = folder / name / f"{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def cornered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cornered")
    data = photographs(folder / "photographs")
    model = LooksAtTheCorner().eval()
    run = xf.audit(
        model,
        data,
        methods=xf.Occlusion(model, window=6, stride=3),
        out=folder / "run",
        preprocess=PREPROCESS,
        classes=("plain", "marked"),
        target="marked",
    )
    return run, model, data


def claim(run, region):
    """That the class "marked" is known by a region."""
    rows = tuple(n for n in range(160) if records_of(run).label[n] == 1)
    cue = RegionCue(REGIONS[region])
    return Finding("shortcut", region, "low", 1.0, {}, rows, (1.0,) * len(rows), 1, cue, Confirmation("not tested"))


def test_what_is_true_is_confirmed_and_what_is_not_is_not(cornered):
    run, model, data = cornered
    from xai_fast.audit.checks.subject import subject_of

    records = records_of(run)
    claims = [claim(run, "bottom right corner"), claim(run, "top left corner"), claim(run, "left border")]
    with subject_of(run, model, data, PREPROCESS) as subject:
        right, wrong, other = confirmed(claims, records, subject, DEFAULT)
    assert right.confirmation.state == "confirmed"
    assert right.severity == "high"
    removed, _, inserted, _ = right.confirmation.changes
    assert removed.what == inserted.what == "probability of marked"
    assert removed.effect < -0.5 < 0.5 < inserted.effect
    assert removed.low <= removed.effect <= removed.high
    for finding in (wrong, other):
        assert finding.confirmation.state == "not confirmed"
        assert finding.severity == "low"


def test_only_held_out_images_prove(cornered):
    run, model, data = cornered
    from xai_fast.audit.checks.subject import Subject, subject_of

    records, asked = records_of(run), []

    class Watched(Subject):
        def pictures(self, positions):
            asked.extend(positions)
            return super().pictures(positions)

    with subject_of(run, model, data, PREPROCESS) as subject:
        confirmed([claim(run, "bottom right corner")], records, Watched(**vars(subject)), DEFAULT)
    assert len(asked) > 40
    assert records.held_out[asked].all()


def test_another_model_proves_nothing(cornered):
    run, _, data = cornered
    other = LooksAtTheCorner().eval()
    with torch.no_grad():
        other.bias += 1
    found = xf.audit.check(run, model=other, data=data, preprocess=PREPROCESS)
    assert all(one.confirmation.state in ("not tested", "no cue") for one in found)
    said = [one.confirmation.note for one in found if one.cue is not None]
    assert all("another than the run's" in note for note in said)


def test_a_run_is_checked_from_its_folder(cornered):
    run, model, data = cornered
    found = xf.audit.check(run.directory, model=model, data=data, preprocess=PREPROCESS)
    assert found.images == 160
    assert findings_of(run.directory) == found


def test_records_are_the_rows_that_are_ok(tmp_path):
    fake_audit.run(tmp_path)
    run = read(tmp_path)
    records = records_of(run, "B")
    table = run.frame()
    fine = table[table.status == "ok"]
    assert len(records) == len(fine) < len(table)
    assert records.failed == len(table) - len(fine)
    assert records.position.tolist() == fine.id.tolist()
    np.testing.assert_array_equal(records.prediction, fine.prediction)
    assert records.embedding.shape == (len(fine), 4)
    expected = masses(shares(run.maps("B")[:, 0].numpy()), list(REGIONS.values()))
    np.testing.assert_allclose(records.regions, expected, atol=1e-6)
    with pytest.raises(ValueError, match="`method` came as 'C'"):
        records_of(run, "C")


def test_a_run_of_objects_without_them_says_so(tmp_path):
    data = sound(tmp_path / "photographs", 12)
    run = xf.audit(Net().eval(), data, out=tmp_path / "run", preprocess=SMALL)
    found = xf.audit.check(run)
    assert all(one.cue is None or "give `model` and `data`" in one.confirmation.note for one in found)


MODEL_FILE = """
from xai_fast import Preprocess
from test_checking import LooksAtTheCorner

def model():
    return LooksAtTheCorner(), Preprocess(resize=24, crop=24), ("plain", "marked")
"""


def test_commands_check_and_report(tmp_path):
    """A run that the command line began is confirmed and drawn without being told its model again."""
    data = photographs(tmp_path / "photographs", 40)
    (tmp_path / "cornered.py").write_text(MODEL_FILE)
    out = str(tmp_path / "run")
    model = f"{tmp_path / 'cornered.py'}:model"

    def invoked(*arguments):
        found = CliRunner().invoke(app, ["audit", *arguments])
        assert found.exit_code == 0, found.output
        return found.output

    invoked("run", "--data", str(data), "--model", model, "--method", "GradCAM", "--set", "layer=relu", "--out", out)
    assert "findings in 40 images" in invoked("check", out)
    assert "index.html" in invoked("report", out)
    assert (tmp_path / "run" / "report" / "index.html").exists()
    invoked("report", out, "--again", "--to", str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "index.html").exists()
    refused = CliRunner().invoke(app, ["audit", "check", str(tmp_path / "photographs")])
    assert refused.exit_code == 2
    assert "holds no audit" in refused.output

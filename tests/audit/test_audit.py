"""Audits from end to end: what is stored is what the methods give; killed, hostile and shared runs end well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_audit
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from photo_folders import MODEL_FILE, PREPROCESS, Net, hostile, photograph, sound
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.audit.auditing import resume
from xai_fast.cli.app import app

MAIN = "from xai_fast.cli import main; main()"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    sound(folder / "photos", 22)
    (folder / "small_models.py").write_text(MODEL_FILE)
    return folder


@pytest.fixture
def cli(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(Path(xf.__file__).parents[1])]))

    def run(*arguments):
        return CliRunner().invoke(app, ["audit", *map(str, arguments)])

    return run


def test_rows_are_what_the_methods_give(folder, tmp_path):
    net = Net()
    methods = [xf.GradCAM(net, layer="second"), xf.LayerCAM(net), xf.Saliency(net), xf.RISE(net, n_masks=9, cells=4)]
    classes = ("cat", "dog", "eel")
    run = xf.audit(net, folder / "photos", methods=methods, out=tmp_path, preprocess=PREPROCESS, classes=classes)
    assert run.complete
    assert run.counts == {"ok": 22}
    assert xf.audit.read(tmp_path).methods == ("GradCAM", "LayerCAM", "Saliency", "RISE")
    rows = run.table().to_pylist()
    assert [row["uri"] for row in rows] == sorted(row["uri"] for row in rows)
    seen = [PREPROCESS(photo) for photo in map(_opened(folder), rows)]
    inputs, ids = torch.stack(seen), torch.arange(22)
    scores = net(inputs).detach()
    for row, own in zip(rows, scores, strict=True):
        assert row["prediction"] == row["target"] == int(own.argmax())
        assert row["label_name"] == row["uri"][:3]
        assert row["label"] == classes.index(row["label_name"])
        shares = own.softmax(0)
        assert row["probability"] == pytest.approx(float(shares.max()), abs=1e-5)
        assert row["label_probability"] == pytest.approx(float(shares[row["label"]]), abs=1e-5)
        assert row["margin"] == pytest.approx(float(own.topk(2)[0].diff().abs()), abs=1e-4)
    for method, label in zip(methods, run.methods, strict=True):
        truth = method(inputs, resolution="native", sample_ids=ids).heatmap().numpy()
        steps = np.array([row[f"{label}.scale"] for row in rows])[:, None, None]
        assert (np.abs(run.maps(label)[:, 0].numpy() - truth) <= 0.52 * steps + 1e-4 * np.abs(truth).max()).all(), label
    kept = net.second(torch.relu(net.conv(inputs))).mean((2, 3))
    assert np.allclose(np.stack([row["embedding"] for row in rows]), kept.detach(), atol=1e-4)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["fixed"]["attribution"]["shared_passes"][0] == ["GradCAM", "LayerCAM"]
    assert "layer='second'" in plan["fixed"]["attribution"]["methods"][1]["method"]


def _opened(folder):
    from PIL import Image

    return lambda row: Image.open(folder / "photos" / row["uri"]).convert("RGB")


def test_killed_and_resumed_with_a_model(folder, tmp_path, cli):
    options = ["--data", "photos", "--model", "small_models.py:net", "--method", "GradCAM,Occlusion"]
    options += ["--set", "window=4", "--shard-size", "2"]
    undisturbed = cli("run", *options, "-o", tmp_path / "whole")
    assert undisturbed.exit_code == 0, undisturbed.output
    command = [sys.executable, "-c", MAIN, "audit", "run", *options, "-o", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shards = tmp_path / "killed" / "shards"
    until = time.monotonic() + 60
    while len(list(shards.glob("*.parquet"))) < 2 and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert cli("status", tmp_path / "killed").exit_code == 4
    done = cli("resume", tmp_path / "killed")
    assert done.exit_code == 0, done.output
    assert "of them done before" in done.output
    assert fake_audit.contents(tmp_path / "killed") == fake_audit.contents(tmp_path / "whole")
    assert cli("status", tmp_path / "killed", "--verify").exit_code == 0


def test_ctrl_c_says_how_to_go_on(folder, tmp_path, cli, monkeypatch):
    from xai_fast.audit import work

    real, calls = work.ShardWork.write, []

    def interrupted(self):
        calls.append(self.index)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(self)

    monkeypatch.setattr(work.ShardWork, "write", interrupted)
    options = ["-d", "photos", "-m", "small_models.py:net", "--shard-size", "4", "-o", tmp_path / "run"]
    stopped = cli("run", *options)
    assert stopped.exit_code == 4, stopped.output
    assert f"xai-fast audit resume {tmp_path / 'run'}" in stopped.output.replace("\n", "")
    assert len(list((tmp_path / "run" / "shards").iterdir())) == 2
    assert not list((tmp_path / "run" / "claims").iterdir())
    assert cli("resume", tmp_path / "run").exit_code == 0


def test_a_hostile_folder_gives_a_row_each(folder, tmp_path, cli):
    said = hostile(tmp_path / "hostile")
    run = cli("run", "-d", tmp_path / "hostile", "-m", "small_models.py:net", "-o", tmp_path / "run")
    assert run.exit_code == 3, run.output
    assert "1 files are not named like images and were left out (.txt 1)" in run.output.replace("\n", " ")
    rows = {row["uri"]: row for row in xf.audit.read(tmp_path / "run").table().to_pylist()}
    assert rows.keys() == said.keys()
    for name, words in said.items():
        row = rows[name]
        assert (row["status"] == "ok") == (words == ""), (name, row["error"])
        assert words in (row["error"] or ""), (name, row["error"])
        assert str(tmp_path) not in (row["error"] or ""), "what is stored does not depend on where the data are"
    listed = cli("status", tmp_path / "run", "--failed")
    assert listed.exit_code == 3
    assert r"line\nbreak.jpg: decode_error" in listed.output
    assert cli("export", tmp_path / "run", "--csv", tmp_path / "rows.csv").exit_code == 0
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == len(said) + 2  # one name holds a line break


def test_processes_share_a_run(folder, tmp_path, cli):
    options = ["-d", "photos", "-m", "small_models.py:net", "--shard-size", "4"]
    assert cli("run", *options, "-o", tmp_path / "alone").exit_code == 0
    for n in (1, 0):
        assert cli("run", *options, "-o", tmp_path / "run", "--shard", f"{n}/2").exit_code == 0
        assert cli("status", tmp_path / "run").exit_code == (4 if n else 0)
    assert fake_audit.contents(tmp_path / "run") == fake_audit.contents(tmp_path / "alone")
    pictures = cli("export", tmp_path / "run", "--overlays", tmp_path / "pictures", "--limit", 2)
    assert pictures.exit_code == 0, pictures.output
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2


def test_a_run_on_which_another_process_works_is_left_to_it(folder, tmp_path, cli):
    options = ["-d", "photos", "-m", "small_models.py:net", "--shard-size", "8", "-o", tmp_path / "run"]
    assert cli("run", *options).exit_code == 0
    shards = xf.audit.read(tmp_path / "run").shards
    for index in (0, 2):
        shards.path(index).unlink()
    with shards.claimed(0), shards.claimed(2):
        busy = cli("resume", tmp_path / "run")
        assert busy.exit_code == 2, busy.output
        assert "is being worked on by another process; wait for it" in busy.output.replace("\n", " ")
    with shards.claimed(0):
        some = cli("run", *options)
        assert some.exit_code == 4, some.output
        assert "8 images are left to other processes that work on them" in some.output.replace("\n", " ")
    assert cli("resume", tmp_path / "run").exit_code == 0


def test_what_is_measured_is_frozen_and_read_from_the_first_image_on(folder, tmp_path, monkeypatch):
    from xai_fast.audit import ready

    real, given = ready.made, []
    monkeypatch.setattr(ready, "made", lambda order, entries: given.append(entries) or real(order, entries))
    net, more = Net(), {"preprocess": PREPROCESS, "shard_size": 8, "tune": True}
    run = xf.audit(net, folder / "photos", methods=["IntegratedGradients", "GradCAM"], out=tmp_path, **more)
    measured = run.plan.fixed["decisions"]
    assert measured, "nothing was measured"
    assert given == [None, measured]
    before = fake_audit.contents(tmp_path)
    run.shards.path(1).unlink()
    xf.audit(net, folder / "photos", methods=["IntegratedGradients", "GradCAM"], out=tmp_path, **more)
    assert given[2:] == [measured]
    assert fake_audit.contents(tmp_path) == before


def test_damaged_shards_are_named_and_made_again(folder, tmp_path, cli):
    options = ["-d", "photos", "-m", "small_models.py:net", "--shard-size", "8", "-o", tmp_path / "run"]
    assert cli("run", *options).exit_code == 0
    before = fake_audit.contents(tmp_path / "run")
    shards = xf.audit.read(tmp_path / "run").shards
    shards.path(1).write_bytes(shards.path(1).read_bytes()[:300])
    content = bytearray(shards.path(2).read_bytes())
    page = pq.read_metadata(shards.path(2)).row_group(0).column(0)
    content[page.data_page_offset + page.total_compressed_size - 1] ^= 1  # in a page: the footer is whole
    shards.path(2).write_bytes(content)
    plain, thorough = cli("status", tmp_path / "run"), cli("status", tmp_path / "run", "--verify")
    assert (plain.exit_code, thorough.exit_code) == (4, 4)
    assert "shard 1 is damaged; resume to make it again" in plain.output
    assert "shard 2 is damaged" not in plain.output
    assert "shard 2 is damaged; remove" in thorough.output
    assert (
        "the run is not complete" in cli("export", tmp_path / "run", "--overlays", tmp_path / "p", "--limit", 1).output
    )
    shards.path(2).unlink()
    made = cli("resume", tmp_path / "run")
    assert made.exit_code == 0, made.output
    assert "shard 1 is damaged, or of another run, and is made again" in made.output
    assert fake_audit.contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "-d", "nowhere", "-o", "x"), "`data` nowhere does not exist"),
        (("run", "-d", "photos", "-o", "x", "--method", "GradCAMM"), "`method` 'GradCAMM' is not known"),
        (("run", "-d", "photos", "-o", "x", "--shard", "2/2"), "`--shard` came as '2/2'; give I/N"),
        (("run", "-d", "photos", "-o", "small_models.py"), "`out` small_models.py is a file"),
        (("run", "-d", "photos", "-o", "x", "--time-out", "0"), "`time_out` came as 0"),
        (("run", "-d", "photos", "-o", "s3://bucket/x"), "`out` s3:/bucket/x is a URL"),
        (("run", "-d", "photos", "-o", "x", "--actors", "2"), "`actors` is about Ray"),
        (("run", "-d", "photos", "-o", "x", "--method", "ErrorAttribution"), "`target` is missing"),
        (("resume", "nowhere"), "nowhere holds no audit"),
        (("status", "nowhere"), "nowhere holds no audit"),
        (("export", "nowhere"), "nowhere holds no audit"),
    ],
)
def test_wrong_usage_runs_nothing(cli, folder, arguments, words):
    found = cli(*arguments, *(("-m", "small_models.py:net") if arguments[0] == "run" else ()))
    assert found.exit_code == 2, found.output
    assert words in found.output.replace("\n", " ")
    assert not (folder / "x").exists()


def test_where_the_model_runs_out_of_memory_the_run_goes_on_in_smaller_batches_that_a_resume_repeats(folder, tmp_path):
    class Large(Net):
        room, seen = 99, ()

        def forward(self, x):
            if len(x) > self.room:
                raise torch.OutOfMemoryError("out of memory")
            Large.seen = (*Large.seen, len(x))
            return super().forward(x)

    classes, further = ("cat", "dog", "eel"), {"preprocess": PREPROCESS, "shard_size": 16}
    methods = ("GradCAM", "Occlusion")

    def audited(net, out):
        chosen = [xf.GradCAM(net), xf.Occlusion(net, window=4)]
        return xf.audit(net, folder / "photos", methods=chosen, classes=classes, out=out, **further)

    whole = audited(Large(), tmp_path / "whole")
    Large.room, Large.seen = 3, ()
    run = audited(Large(), tmp_path / "little")
    assert run.counts == whole.counts == {"ok": 22}
    assert max(Large.seen) <= 3
    assert [run.shards.facts(index)["backoff"] for index in (0, 1)] == [[[0, 2]], [[0, 2]]]
    assert torch.allclose(
        run.maps("Occlusion"), whole.maps("Occlusion"), atol=1e-2 * float(whole.maps("Occlusion").max())
    )
    status = CliRunner().invoke(app, ["audit", "status", str(tmp_path / "little")])
    assert "memory ran out in 2 shards (0, 1), which went on in smaller batches" in status.output.replace("\n", " ")
    before = fake_audit.contents(tmp_path / "little")
    run.shards.path(1).unlink()
    Large.room, Large.seen = 99, ()
    assert audited(Large(), tmp_path / "little").complete
    assert fake_audit.contents(tmp_path / "little") == before
    assert run.methods == methods


def test_nan_and_images_of_many_sizes_are_rows_of_their_own(tmp_path):
    class Fussy(Net):
        def forward(self, x):
            scores = super().forward(x)
            return torch.where(x.mean((1, 2, 3), keepdim=True)[..., 0, 0] > 0.9, torch.nan, scores)

    data = tmp_path / "photos"
    data.mkdir()
    for n, size in enumerate([(20, 16), (16, 20), (20, 16), (24, 24), (16, 20)]):
        photograph(n, size).save(data / f"{n}.png")
    from PIL import Image

    Image.new("RGB", (20, 16), "white").save(data / "white.png")
    whole = xf.Preprocess(resize=None, crop=None)
    run = xf.audit(Fussy(), data, methods="Saliency", out=tmp_path / "run", preprocess=whole)
    rows = run.table(["status", "Saliency.height", "Saliency.width", "Saliency.heatmap"]).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 5 + ["nan"]
    assert [(row["Saliency.width"], row["Saliency.height"]) for row in rows[:4]] == [
        (20, 16),
        (16, 20),
        (20, 16),
        (24, 24),
    ]
    assert len(rows[3]["Saliency.heatmap"]) == 24 * 24
    assert rows[5]["Saliency.heatmap"] is None
    with pytest.raises(ValueError, match="have 3 shapes"):
        run.maps()
    with pytest.raises(ValueError, match="was begun from Python"):
        resume(tmp_path / "run")

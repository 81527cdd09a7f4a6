"""Whoever works on a run, it ends with the same bytes; a lost worker's shards are handed out again."""

from __future__ import annotations

import os
from pathlib import Path

import fake_audit
import pytest
from photo_folders import PREPROCESS, Net, sound
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.audit.executors.contract import Watch
from xai_fast.audit.executors.shares import TRIES, Shares
from xai_fast.audit.reading import read
from xai_fast.cli.app import app

HERE = Path(__file__).parent
MODEL_FILE = """
import os, signal
from xai_fast import Preprocess
from photo_folders import Net

class Fatal(Net):
    def forward(self, x):
        # Ends its process where a batch holds a white image: once per file in the folder that FATAL names, or always.
        white = (x.amin((1, 2, 3)) > 0.99).any()
        left = os.environ.get("FATAL")
        if white and left and (files := sorted(os.listdir(left))):
            if files[0] != "always":
                os.unlink(os.path.join(left, files[0]))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def net():
    return Fatal(), Preprocess(resize=16, crop=16), ("cat", "dog", "eel")
"""


class Told(Watch):
    def __init__(self):
        self.statuses, self.shards, self.words = [], [], []

    def images(self, statuses):
        self.statuses += statuses

    def shard(self, index):
        self.shards.append(index)

    def said(self, words):
        self.words.append(words)


def test_a_lost_workers_shards_are_handed_out_again():
    shares = Shares()
    shares.begin(range(5))
    assert [shares.ask(1), shares.ask(2), shares.ask(1)] == [0, 1, 2]
    shares.done(1, 0, ["ok", "nan"])
    assert shares.news() == ([(0, ["ok", "nan"])], 2, 2)
    assert shares.lost(1) == [2]
    shares.done(1, 2, ["ok"])  # came late: the shard is another's by now
    assert shares.news() == ([], 3, 1)
    assert [shares.ask(3), shares.ask(3), shares.ask(3), shares.ask(3)] == [2, 3, 4, None]
    shares.done(3, 2, ["ok"])
    shares.ended(3)
    assert shares.news() == ([(2, ["ok"])], 0, 1)


def test_a_shard_that_ends_every_worker_is_given_up_and_no_other():
    shares = Shares()
    shares.begin(range(3))
    for worker in range(TRIES):
        assert [shares.ask(worker), shares.ask(worker)] == [0, 1]
        assert shares.lost(worker) == [0, 1]
    assert shares.lost_for_good() == [0]
    assert [shares.ask(9), shares.ask(9), shares.ask(9)] == [1, 2, None]


def test_executors_that_are_none_are_refused(tmp_path):
    sound(tmp_path / "photos", 2)
    for further, words in (
        ({"executor": "dask"}, "`executor` came as 'dask'; give one of 'local', 'ray'"),
        ({"actors": 2}, "`actors` is about Ray"),
        ({"executor": "ray", "actors": 0}, "`actors` came as 0; give at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            xf.audit(Net(), tmp_path / "photos", preprocess=PREPROCESS, out=tmp_path / "run", **further)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """A cluster on this machine; its workers read this folder, and what `FATAL` names."""
    ray = pytest.importorskip("ray")
    fatal = tmp_path_factory.mktemp("fatal")
    kept = {name: os.environ.get(name) for name in ("PYTHONPATH", "FATAL")}
    os.environ.update(PYTHONPATH=os.pathsep.join([str(HERE), str(Path(xf.__file__).parents[1])]), FATAL=str(fatal))
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield fatal
    ray.shutdown()
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    sound(folder / "photos", 22)
    Image.new("RGB", (20, 20), "white").save(folder / "photos" / "dog" / "white.jpg")
    (folder / "fatal_models.py").write_text(MODEL_FILE)
    return folder


def _arguments(folder, out):
    options = ["--shard-size", "4", "--method", "GradCAM,Occlusion", "--set", "window=4"]
    return ["audit", "run", "-d", str(folder / "photos"), "-m", f"{folder}/fatal_models.py:net", *options, "-o", out]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    found = CliRunner().invoke(app, _arguments(folder, str(out)))
    assert found.exit_code == 0, found.output
    return fake_audit.contents(out)


def test_on_ray_it_ends_with_the_same_bytes_though_an_actor_is_killed(ray, folder, alone, tmp_path):
    (ray / "once").touch()
    found = CliRunner().invoke(app, [*_arguments(folder, str(tmp_path)), "--executor", "ray", "--actors", "2"])
    assert found.exit_code == 0, found.output
    assert "an actor ended" in found.output
    assert "23 images, 0 failed" in found.output
    assert not list(ray.iterdir())
    assert fake_audit.contents(tmp_path) == alone
    assert CliRunner().invoke(app, ["audit", "resume", str(tmp_path), "--executor", "ray"]).exit_code == 0


def test_on_ray_a_shard_that_ends_every_actor_leaves_the_others_whole(ray, folder, alone, tmp_path):
    (ray / "always").touch()
    found = CliRunner().invoke(app, [*_arguments(folder, str(tmp_path)), "--executor", "ray", "--actors", "1"])
    (ray / "always").unlink()
    assert found.exit_code == 4, found.output
    assert f"ended {TRIES} actors" in found.output.replace("\n", " ")
    assert "audit resume" in found.output
    assert "--executor ray" in found.output.replace("\n", " ")
    run = read(tmp_path)
    assert len(run.done) == len(run.plan.sizes) - 1
    assert CliRunner().invoke(app, ["audit", "resume", str(tmp_path)]).exit_code == 0
    assert fake_audit.contents(tmp_path) == alone


def test_on_ray_what_is_wrong_is_said_as_if_it_were_here(ray, folder, tmp_path):
    sound(tmp_path / "photos", 3)
    further = {"executor": "ray", "preprocess": PREPROCESS, "out": tmp_path / "run"}
    with pytest.raises(ValueError, match=r"`data` .*nowhere does not exist"):
        xf.audit(Net(), tmp_path / "nowhere", **further)
    run = xf.audit(Net(), tmp_path / "photos", **further)
    assert run.counts == {"ok": 3}
    with pytest.raises(ValueError, match="another plan"):
        xf.audit(Net(), tmp_path / "photos", methods="Saliency", **further)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        xf.audit(Net(), tmp_path / "photos", **{**further, "out": tmp_path / "file"})


def test_without_ray_it_is_said(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    sound(tmp_path / "photos", 2)
    with pytest.raises(ImportError, match=r"pip install 'xai_fast\[ray\]'"):
        xf.audit(Net(), tmp_path / "photos", preprocess=PREPROCESS, out=tmp_path / "run", executor="ray")

"""Runs as other tools open them: ViRelAy's projects, FiftyOne's data sets, and Parquet as it is."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from photo_folders import MODEL_FILE, sound
from PIL import Image
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast.cli.app import app


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An audit of 22 photographs by a map without a sign and one with."""
    folder = tmp_path_factory.mktemp("exports")
    sound(folder / "photos", 22)
    (folder / "small_models.py").write_text(MODEL_FILE)
    model = f"{folder / 'small_models.py'}:net"
    methods = ["--method", "GradCAM,Saliency", "--set", "Saliency.absolute=false"]
    made = CliRunner().invoke(
        app, ["audit", "run", "-d", str(folder / "photos"), "-m", model, *methods, "-o", str(folder / "run")]
    )
    assert made.exit_code == 0, made.output
    return xf.audit.read(folder / "run")


def exported(run, *options):
    return CliRunner().invoke(app, ["audit", "export", str(run.directory), *map(str, options)])


def class_of(run, index):
    return run.classes[index] if index < len(run.classes) else f"class {index}"


@pytest.mark.parametrize("method", ["GradCAM", "Saliency"])
def test_a_data_set_of_fiftyone_holds_pictures_answers_and_maps(run, tmp_path, method):
    made = exported(run, "--fiftyone", tmp_path / "set", "--method", method)
    assert made.exit_code == 0, made.output
    samples = json.loads((tmp_path / "set" / "samples.json").read_text())["samples"]
    assert "version" not in json.loads((tmp_path / "set" / "metadata.json").read_text())
    rows, maps = run.table().to_pylist(), run.maps(method)[:, 0].numpy()
    assert [sample["source"] for sample in samples] == [row["uri"] for row in rows]
    signed = {one["label"]: one["signed"] for one in run.plan.fixed["attribution"]["methods"]}[method]
    for sample, row, truth in zip(samples, rows, maps, strict=True):
        assert Image.open(tmp_path / "set" / sample["filepath"]).mode == "RGB"
        heat = sample[method]
        assert (heat["_cls"], heat["range"]) == ("Heatmap", [0, 255])
        levels = np.asarray(Image.open(tmp_path / "set" / heat["map_path"])).astype(float)
        largest = np.abs(truth).max() if signed else truth.max()
        found = (levels - 127.5) / 127.5 * largest if signed else levels / 255 * largest
        np.testing.assert_allclose(found, truth if signed else truth.clip(0), atol=largest / 250)
        assert sample["prediction"]["label"] == class_of(run, row["prediction"])
        assert sample["prediction"]["confidence"] == pytest.approx(row["probability"])


def test_a_project_of_virelay_holds_pictures_maps_and_an_embedding_per_class(run, tmp_path):
    h5py = pytest.importorskip("h5py")
    made = exported(run, "--virelay", tmp_path / "project")
    assert made.exit_code == 0, made.output
    project = json.loads((tmp_path / "project" / "project.yaml").read_text())["project"]
    labels = json.loads((tmp_path / "project" / project["label_map"]).read_text())
    rows = run.table().to_pylist()
    with h5py.File(tmp_path / "project" / project["dataset"]["path"]) as inputs:
        assert inputs["data"].shape[:2] == (22, 3)
        known = [row["target"] if row["label"] is None else row["label"] for row in rows]
        assert inputs["label"][:].tolist() == known
        assert max(known) < len(labels)
        size = inputs["data"].shape[2:]
    with h5py.File(tmp_path / "project" / project["attributions"]["sources"][0]) as maps:
        assert maps["attribution"].shape == (22, 1, *size)
        assert maps["index"][:].tolist() == list(range(22))
        assert maps["prediction"][:].argmax(1).tolist() == [row["prediction"] for row in rows]
        for number, truth in enumerate(run.maps("GradCAM")[:, 0].numpy()):
            resized = np.asarray(Image.fromarray(truth).resize(size[::-1], Image.Resampling.BILINEAR))
            np.testing.assert_allclose(maps["attribution"][number, 0], resized, atol=1e-6)
    targets = np.array([row["target"] for row in rows])
    with h5py.File(tmp_path / "project" / project["analyses"][0]["sources"][0]) as analysis:
        assert set(analysis) == {f"{index:05d}" for index in np.unique(targets) if (targets == index).sum() >= 6}
        for name, category in analysis.items():
            members = category["index"][:]
            assert (targets[members] == int(name)).all()
            embedding = category["embedding/spectral"]
            assert embedding.shape == (len(members), len(embedding.attrs["eigenvalue"]))
            assert np.isfinite(embedding[:]).all()
            assert all(groups.shape == members.shape for groups in category["cluster"].values())


def test_what_cannot_be_exported_is_refused_before_anything_is_written(run, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    for kind in ("--fiftyone", "--virelay"):
        if kind == "--virelay":
            pytest.importorskip("h5py")
        full = exported(run, kind, tmp_path / "full")
        assert full.exit_code == 2
        assert "is not empty" in full.output
        other = exported(run, kind, tmp_path / "new", "--method", "LIME")
        assert other.exit_code == 2
        assert "`method` came as 'LIME'" in other.output
    assert not (tmp_path / "new").exists()
    monkeypatch.setitem(sys.modules, "h5py", None)
    missing = exported(run, "--virelay", tmp_path / "new")
    assert missing.exit_code == 2
    assert "xai_fast[virelay]" in missing.output
    assert "nothing to export" in exported(run).output


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb"])
def test_shards_are_read_as_they_are(run, library):
    module = pytest.importorskip(library)
    shards = str(run.directory / "shards")
    if library == "duckdb":
        found = module.sql(f"SELECT uri, prediction FROM '{shards}/*.parquet' ORDER BY id").fetchall()
        found = [list(row) for row in found]
    elif library == "polars":
        found = [list(row) for row in module.read_parquet(f"{shards}/*.parquet").sort("id")["uri", "prediction"].rows()]
    else:
        found = module.read_parquet(shards).sort_values("id")[["uri", "prediction"]].values.tolist()
    expected = sorted(run.table(["id", "uri", "prediction"]).to_pylist(), key=lambda row: row["id"])
    assert found == [[row["uri"], row["prediction"]] for row in expected]

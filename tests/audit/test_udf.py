"""`AttributionUDF` says of rows what an audit says of images; and it runs in a Ray pipeline."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from photo_folders import PREPROCESS, Net, sound
from PIL import Image

import xai_fast as xf
from xai_fast.audit.ray import AttributionUDF

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return sound(tmp_path_factory.mktemp("udf"), 10)


@pytest.fixture(scope="module")
def audited(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return xf.audit(Net(), photos, methods=["GradCAM", "RISE"], out=out, preprocess=PREPROCESS, classes=CLASSES)


def _batch(photos, audited, as_image):
    rows = audited.table(["id", "uri", "label_name"]).to_pylist()
    images = [as_image(photos / row["uri"]) for row in rows]
    return pa.table({"number": [row["id"] for row in rows], "name": [row["label_name"] for row in rows]}), images


def _udf(**further):
    fixed = {"preprocess": PREPROCESS, "classes": CLASSES, "id": "number", "label": "name"}
    return AttributionUDF(Net(), ["GradCAM", "RISE"], **{**fixed, **further})


def test_rows_are_those_of_an_audit(photos, audited):
    batch, images = _batch(photos, audited, Path.read_bytes)
    found = _udf(image="photo")(batch.append_column("photo", pa.array(images)))
    expected = audited.table()
    ours = [name for name in found.column_names if name not in ("number", "name")]
    assert set(ours) == set(expected.column_names) - {"id", "uri", "label", "label_name"}
    for name in ours:
        assert found.column(name).to_pylist() == expected.column(name).to_pylist(), name
        assert found.schema.field(name).type == expected.schema.field(name).type


def test_arrays_and_huggingfaces_images_are_the_same(photos, audited):
    batch, images = _batch(photos, audited, Path.read_bytes)
    udf = _udf()
    expected = udf(batch.append_column("image", pa.array(images)))
    nested = pa.array([{"bytes": content, "path": None} for content in images])
    assert udf(batch.append_column("image", nested)).equals(expected)
    pixels = np.stack([np.asarray(Image.open(photos / uri).convert("RGB")) for uri in audited.frame()["uri"]])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    assert udf(batch.append_column("image", tensors)).equals(expected)


def test_what_cannot_be_read_is_a_row(photos, audited):
    batch, images = _batch(photos, audited, Path.read_bytes)
    images[3], images[4] = b"no image", None
    found = _udf()(batch.append_column("image", pa.array(images))).to_pylist()
    assert [row["status"] for row in found] == ["ok"] * 3 + ["decode_error"] * 2 + ["ok"] * 5
    assert "not an image" in found[3]["error"]
    assert "came as NoneType; give encoded bytes" in found[4]["error"]
    assert found[3]["GradCAM.heatmap"] is None


def test_where_memory_runs_out_halves_are_asked_about(photos, audited):
    class Small(Net):
        def forward(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(x)

    batch, images = _batch(photos, audited, Path.read_bytes)
    udf = AttributionUDF(Small(), preprocess=PREPROCESS, classes=CLASSES)
    found = udf(batch.append_column("image", pa.array(images)))
    assert found.column("status").to_pylist() == ["ok"] * 10
    assert found.column("prediction").to_pylist() == audited.table().column("prediction").to_pylist()


@pytest.mark.parametrize(
    ("columns", "further", "words"),
    [
        ({"photo": [b""]}, {}, "the dataset has no column 'image', but photo"),
        (
            {"image": [b""], "status": ["x"]},
            {"id": None, "label": None},
            "has a column 'status' already; give `prefix`",
        ),
        ({"image": [b""]}, {}, "the dataset has no column 'number'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, further, words):
    with pytest.raises(ValueError, match=words):
        _udf(**further)(pa.table(columns))


def test_other_batches_are_refused_and_prefixes_help():
    with pytest.raises(TypeError, match="came as dict; give map_batches `batch_format='pyarrow'`"):
        _udf()({"image": []})
    batch = pa.table({"image": [np.zeros((0,), np.uint8).tobytes()], "status": ["theirs"]})
    (row,) = _udf(id=None, label=None, prefix="xai.")(batch).to_pylist()
    assert (row["status"], row["xai.status"]) == ("theirs", "decode_error")


def test_in_a_pipeline_of_rays(photos, audited):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(xf.__file__).parents[1])])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        settings = {"model": Net(), "preprocess": PREPROCESS, "classes": CLASSES}
        rows = (
            ray.data.read_images(str(photos), include_paths=True)
            .map_batches(
                AttributionUDF,
                fn_constructor_kwargs=settings,
                batch_format="pyarrow",
                batch_size=4,
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=1),
            )
            .take_all()
        )
    finally:
        ray.shutdown()
    found = {os.path.relpath(row["path"], photos): row["prediction"] for row in rows}
    expected = audited.table(["uri", "prediction"]).to_pylist()
    assert found == {row["uri"]: row["prediction"] for row in expected}
    assert all(row["status"] == "ok" and row["GradCAM.heatmap"] for row in rows)

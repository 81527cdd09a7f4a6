"""Every kind of source lists its images, and hands out the same bytes as the files that it was made of."""

from __future__ import annotations

import csv
import io
import json
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photo_folders import PREPROCESS, Net, sound

import xai_fast as xf
from xai_fast.audit.labels import labels_of
from xai_fast.audit.sources.choose import source_of
from xai_fast.audit.sources.payload import Part

COUNT = 7


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return sound(tmp_path_factory.mktemp("sources"), COUNT)


@pytest.fixture(scope="module")
def contents(photos):
    return [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))]


def listed(source):
    """Labels and bytes of the images."""
    rows = source.manifest().rows(0, COUNT + 1)
    return [row["label"] for row in rows], [_bytes(source.fetch(row)) for row in rows]


def _bytes(payload):
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, Part):
        return payload.path.read_bytes()[payload.offset : payload.offset + payload.length]
    return payload.read_bytes()


def made(kind, photos, folder):
    """The photographs of a folder as another kind of source."""
    paths = sorted(photos.rglob("*.jpg"))
    labels = [path.parent.name for path in paths]
    if kind == "csv":
        with open(folder / "list.csv", "w", newline="") as file:
            rows = [
                (path, label, f"camera {n % 2}", n / 2)
                for n, (path, label) in enumerate(zip(paths, labels, strict=True))
            ]
            csv.writer(file).writerows([("path", "label", "camera", "weight"), *rows])
        return folder / "list.csv"
    if kind == "parquet":
        pq.write_table(pa.table({"path": list(map(str, paths)), "label": labels}), folder / "list.parquet")
        return folder / "list.parquet"
    if kind == "images":
        images = pa.array([{"bytes": path.read_bytes(), "path": path.name} for path in paths])
        names = sorted(set(labels))
        table = pa.table({"image": images, "label": [names.index(label) for label in labels], "n": list(range(COUNT))})
        facts = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(facts)})
        for part in range(2):
            rows = table.slice(part * 4, 4)
            pq.write_table(rows, folder / f"train-{part}.parquet", row_group_size=3)
        return folder / "train-*.parquet"
    for part in range(2):
        with tarfile.open(folder / f"train-{part}.tar", "w") as tar:
            for n, (path, label) in list(enumerate(zip(paths, labels, strict=True)))[part * 4 : part * 4 + 4]:
                tar.add(path, f"{n:06d}.jpg")
                beside = tarfile.TarInfo(f"{n:06d}.cls")
                beside.size = len(label)
                tar.addfile(beside, io.BytesIO(label.encode()))
    return folder / "train-*.tar"


@pytest.mark.parametrize("kind", ["csv", "parquet", "images", "tars"])
def test_other_kinds_hold_the_same(kind, photos, contents, tmp_path):
    expected = listed(source_of(photos))
    assert expected == ([row[0] for row in _names(photos)], contents)
    source = source_of(made(kind, photos, tmp_path))
    assert listed(source) == expected
    assert source.manifest().sha256() == source_of(str(made(kind, photos, tmp_path))).manifest().sha256()


def _names(photos):
    return [(path.parent.name, path.name) for path in sorted(photos.rglob("*.jpg"))]


@pytest.mark.parametrize("kind", ["folder", "csv", "images", "tars"])
def test_behind_a_url(kind, photos, contents, tmp_path):
    files = fsspec.filesystem("memory")
    files.rm("/", recursive=True) if files.ls("/") else None
    if kind == "folder":
        files.put(str(photos), "/data", recursive=True)
        url = "memory://data"
    else:
        pattern = made(kind, photos, tmp_path)
        for path in tmp_path.iterdir():
            files.pipe(f"/tables/{path.name}", path.read_bytes())
        url = f"memory://tables/{pattern.name}"
    assert listed(source_of(url)) == listed(source_of(photos))


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on a server of this machine."""
    moto, s3fs = pytest.importorskip("moto.server"), pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("audited")
    yield s3fs.S3FileSystem()
    s3fs.S3FileSystem().rm("audited", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("kind", ["folder", "csv", "images", "tars"])
def test_on_s3(kind, photos, contents, tmp_path, bucket):
    if kind == "folder":
        for path in photos.rglob("*.jpg"):
            bucket.pipe(f"audited/data/{path.relative_to(photos)}", path.read_bytes())
        url = "s3://audited/data"
    else:
        pattern = made(kind, photos, tmp_path)
        for path in tmp_path.iterdir():
            bucket.pipe(f"audited/tables/{path.name}", path.read_bytes())
        url = f"s3://audited/tables/{pattern.name}"
    assert listed(source_of(url)) == listed(source_of(photos))


def test_an_audit_from_s3_holds_the_same_rows_and_says_what_is_gone(photos, tmp_path, bucket):
    for path in photos.rglob("*.jpg"):
        bucket.pipe(f"audited/data/{path.relative_to(photos)}", path.read_bytes())
    here = xf.audit(Net(), photos, out=tmp_path / "here", preprocess=PREPROCESS)
    there = xf.audit(Net(), "s3://audited/data", out=tmp_path / "there", preprocess=PREPROCESS)
    assert there.table().equals(here.table())
    source = source_of("s3://audited/data")
    rows = source.manifest().rows(0, COUNT)
    bucket.rm(f"audited/data/{rows[2]['uri']}")
    with pytest.raises(FileNotFoundError):
        source.fetch(rows[2])
    with pytest.raises(ValueError, match=r"`data` s3://audited/nothing does not exist"):
        source_of("s3://audited/nothing")


def test_metadata_is_kept_with_the_rows(photos, tmp_path):
    run = xf.audit(Net(), made("csv", photos, tmp_path), out=tmp_path / "run", preprocess=PREPROCESS)
    rows = run.table(["meta.camera", "meta.weight", "label_name", "status"]).to_pylist()
    assert [row["meta.camera"] for row in rows] == [f"camera {n % 2}" for n in range(COUNT)]
    assert [row["meta.weight"] for row in rows] == [n / 2 for n in range(COUNT)]
    assert {row["status"] for row in rows} == {"ok"}
    assert rows[0]["label_name"] == "cat"


def test_labels_are_classes_by_name_number_or_order(photos):
    manifest = source_of(photos).manifest()
    assert labels_of(manifest, ("eel", "cow", "cat")) == {"cat": 2, "eel": 0}
    assert labels_of(manifest, None) == {"cat": 0, "dog": 1, "eel": 2}
    assert labels_of(manifest, ("a", "b", "c")) == {}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", b"name,label\na.jpg,cat\n", "has no column `path`, but name, label"),
        ("list.csv", b"path,id\na.jpg,x\n", "ids must be whole numbers"),
        ("list.csv", b"path,id\na.jpg,1\nb.jpg,1\n", "gives one id to several"),
        ("list.csv", b"path\n", "holds no images"),
        ("list.parquet", b"no table", "cannot be read as Parquet"),
        ("a.tar", b"\x1f\x8b no tar", "cannot be read as an uncompressed tar"),
        ("a.zip", b"", "is of no kind that fits; give a folder"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        source_of(tmp_path / name).manifest()


def test_urls_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match="cannot be opened: Protocol not known"):
        source_of("nonsense://bucket/folder")
    with pytest.raises(TypeError, match="`data` came as int"):
        source_of(3)

"""The store loses nothing: killed anywhere, with a full disk, damaged, or shared, a run ends with the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import fake_audit
import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xai_fast.audit.backoff import LEFT_OUT, Backoff
from xai_fast.audit.plan import Plan, shard_size_for
from xai_fast.audit.reading import read
from xai_fast.audit.store import shards as store
from xai_fast.audit.store.maps import quantised, summaries
from xai_fast.audit.store.shards import StoreError

SCRIPT = Path(fake_audit.__file__)
KILLS = (3, 8, 13, 18, 23, 28)  # places spread over a run, before and after what touches the disk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    fake_audit.run(folder)
    return fake_audit.contents(folder)


@pytest.mark.parametrize("at", KILLS)
def test_killed_and_resumed_it_ends_with_the_same_bytes(tmp_path, undisturbed, at):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--kill-at", str(at)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    before = [path.name for path in (tmp_path / "shards").glob("*.parquet")] if (tmp_path / "shards").exists() else []
    job, worked = fake_audit.run(tmp_path)
    assert fake_audit.contents(tmp_path) == undisturbed
    assert len(worked.written) == len(job.shards) - len(before)
    assert [row["id"] for row in read(tmp_path).table(["id"]).to_pylist()] == list(range(fake_audit.IMAGES))


@pytest.mark.slow
def test_killed_at_every_touch_of_the_disk(tmp_path, undisturbed):
    """In folder after folder, each time one touch later, until a run comes to its end."""
    rounds = 0
    for at in range(1, 400):
        folder = tmp_path / str(at)
        command = [sys.executable, str(SCRIPT), str(folder), "--kill-at", str(at)]
        if subprocess.run(command, check=False, timeout=60).returncode == 0:
            break
        rounds += 1
        fake_audit.run(folder)
        assert fake_audit.contents(folder) == undisturbed, f"killed at touch {at}"
    assert rounds >= 50


def test_batches_do_not_depend_on_where_a_run_goes_on(tmp_path, undisturbed):
    fake_audit.run(tmp_path, [5, 2])
    job, worked = fake_audit.run(tmp_path)
    assert worked.written == [0, 1, 3, 4, 6]
    assert fake_audit.contents(tmp_path) == undisturbed
    for batch in job.attributor.batches:
        assert len({number // fake_audit.SHARD for number in batch}) == 1
    assert max(map(len, job.attributor.batches)) == 3


def test_rows_say_what_failed(tmp_path):
    fake_audit.run(tmp_path)
    rows = {row["id"]: row for row in read(tmp_path).table().to_pylist()}
    assert len(rows) == fake_audit.IMAGES
    for number, row in rows.items():
        position = number % fake_audit.SHARD
        expected = {3: ("model_error", "ValueError: too dark"), 5: ("decode_error", "broken")}.get(position)
        if number == 13:
            expected = ("decode_error", "broken") if position == 5 else ("model_error", "RuntimeError: thirteen")
        assert (row["status"], row["error"]) == (expected or ("ok", None)), number
        assert (row["A.heatmap"] is None) == (expected is not None)
        assert (row["prediction"] is None) == (expected is not None)
    assert read(tmp_path).counts["decode_error"] == 6


def test_an_image_that_the_model_refuses_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_audit.FakeAttributor, "__call__", _refuses_eleven)
    fake_audit.run(tmp_path)
    failed = [row["id"] for row in read(tmp_path).table(["id", "status"]).to_pylist() if row["status"] != "ok"]
    assert failed == [n for n in range(fake_audit.IMAGES) if n % 8 in (3, 5) or n == 12]


def _refuses_eleven(self, inputs, ids, labels, halvings=0):
    if 12 in ids:
        raise RuntimeError("twelve")
    return [self._answer(number, len(ids)) for number in ids]


def _little(number, rows):
    """Memory for next to nothing where images 20 to 22 are, for nothing at all where 31 is."""
    return number == 31 or (20 <= number <= 22 and rows > 4)


def test_where_memory_runs_out_batches_are_smaller_and_a_resume_repeats_that(tmp_path, undisturbed):
    fake_audit.run(tmp_path / "little", memory=_little)
    rows = read(tmp_path / "little").table().to_pylist()
    assert [row["id"] for row in rows if "however few rows" in (row["error"] or "")] == [31]
    shards = read(tmp_path / "little").shards
    assert shards.facts(2)["backoff"] == [[3, 1]], "batches of 3 begin at images 16 and 19"
    assert shards.facts(3)["backoff"] == [[6, 1], [7, LEFT_OUT], [8, 0]], "30 and 31 began together"
    assert all("backoff" not in shards.facts(index) for index in (0, 1, 4, 5, 6))
    whole = fake_audit.contents(tmp_path / "little")
    assert {name for name in whole if whole[name] != undisturbed.get(name)} == {
        "shards/part-00002.parquet",
        "shards/part-00003.parquet",
        "backoffs/part-00002.json",
        "backoffs/part-00003.json",
    }
    for index in (2, 3):  # now there is room, but the bytes stay those of the run
        shards.path(index).unlink()
    fake_audit.run(tmp_path / "little")
    assert fake_audit.contents(tmp_path / "little") == whole


def test_a_run_that_is_killed_after_memory_ran_out_repeats_its_batches(tmp_path):
    fake_audit.run(tmp_path / "whole", memory=_little)
    job = fake_audit.job_in(tmp_path / "killed")
    job.shards.note_backoff(2, [(3, 1)])  # all that is left of a process that was killed in shard 2
    fake_audit.run(tmp_path / "killed", [2])
    assert job.shards.path(2).read_bytes() == fake_audit.job_in(tmp_path / "whole").shards.path(2).read_bytes()
    (tmp_path / "killed" / "backoffs" / "part-00001.json").write_text("{")
    with pytest.raises(StoreError, match=r"part-00001.json cannot be read .*; remove it"):
        fake_audit.run(tmp_path / "killed", [1])


def test_batches_grow_again_behind_an_image_that_nothing_makes_fit():
    backoff = Backoff()
    backoff.halve(6)
    backoff.halve(6)
    backoff.leave_out(7)
    assert [backoff.at(row) for row in (0, 5, 6, 7, 8, 99)] == [0, 0, 2, LEFT_OUT, 0, 0]
    backoff.leave_out(6)
    assert [backoff.at(row) for row in (5, 6, 7, 8, 99)] == [0, LEFT_OUT, LEFT_OUT, 0, 0]
    backoff.halve(3)
    assert [backoff.at(row) for row in (2, 3, 6, 7, 8, 99)] == [0, 1, LEFT_OUT, LEFT_OUT, 1, 1]
    assert Backoff.of([[3, 1], [6, 2]]).at(6) == 2


def test_pandas_reads_it_as_it_is(tmp_path):
    fake_audit.run(tmp_path)
    frame = pandas.read_parquet(tmp_path / "shards")
    assert len(frame) == fake_audit.IMAGES
    first = frame.iloc[0]
    values = first["A.zero"] + first["A.scale"] * np.frombuffer(first["A.heatmap"], np.uint8).reshape(2, 3)
    truth = fake_audit.FakeAttributor()([None] * 3, [0, 1, 2], [])[0].maps["A"]
    assert np.abs(values - truth).max() <= first["A.scale"] * 0.51
    assert first["status"] == "ok"
    assert len(first["embedding"]) == 4
    assert pq.read_schema(next((tmp_path / "shards").glob("*"))).field("B.heatmap").type.byte_width == 16


def test_maps_come_back_within_half_a_step(tmp_path):
    fake_audit.run(tmp_path)
    run = read(tmp_path)
    maps, table = run.maps("B"), run.table(["status", "B.scale"])
    scales = [scale for scale in table.column("B.scale").to_pylist() if scale is not None]
    assert maps.shape == (len(scales), 1, 4, 4)
    assert f"50 of 50 images, {50 - len(scales)} failed" in repr(run)
    with pytest.raises(ValueError, match=r"`method` came as None; the run has A, B"):
        run.maps()
    with pytest.raises(ValueError, match=r"`columns` holds 'A\.mass'"):
        run.table(["A.mass"])


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_full_disk_is_said_and_leaves_whole_shards(tmp_path, undisturbed, monkeypatch, name):
    job = fake_audit.job_in(tmp_path)
    shards, real = job.shards, store.pq.write_table
    calls = []

    def full(*args, **kwargs):
        calls.append(args)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    if name == "write":
        monkeypatch.setattr(store.pq, "write_table", full)
    else:
        real = getattr(os, name)
        monkeypatch.setattr(store.os, name, full)
    with pytest.raises(StoreError, match="cannot be written to: No space left on device"):
        fake_audit.run_shards(job, range(len(shards)), fake_audit.Source(), fake_audit.stream, fake_audit.Watch())
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.tmp-*"))
    assert not list((tmp_path / "claims").iterdir())
    fake_audit.run(tmp_path)
    assert fake_audit.contents(tmp_path) == undisturbed


def test_damaged_shards_are_made_again(tmp_path, undisturbed):
    job, _ = fake_audit.run(tmp_path)
    job.shards.path(1).write_bytes(job.shards.path(1).read_bytes()[:-10])
    job.shards.path(2).write_bytes(job.shards.path(3).read_bytes())
    job.shards.path(4).write_bytes(b"")
    assert [index for index in range(len(job.shards)) if job.shards.damaged(index)] == [1, 2, 4]
    assert not read(tmp_path).complete
    _, worked = fake_audit.run(tmp_path)
    assert worked.written == [1, 2, 4]
    assert fake_audit.contents(tmp_path) == undisturbed


def test_a_flipped_byte_is_seen_when_a_shard_is_read(tmp_path):
    job, _ = fake_audit.run(tmp_path)
    content = bytearray(job.shards.path(0).read_bytes())
    content[len(content) // 3] ^= 1
    job.shards.path(0).write_bytes(content)
    with pytest.raises(ValueError, match="shard 0 is damaged"):
        job.shards.read(0)


def test_what_is_written_is_read_again_before_it_counts(tmp_path, monkeypatch):
    real = store.pq.write_table

    def other(table, *args, **kwargs):
        return real(table.slice(1), *args, **kwargs)

    job = fake_audit.job_in(tmp_path)
    monkeypatch.setattr(store.pq, "write_table", other)
    with pytest.raises(StoreError, match="reads back as something else"):
        fake_audit.run_shards(job, [0], fake_audit.Source(), fake_audit.stream, fake_audit.Watch())
    assert not job.shards.path(0).exists()


def test_two_workers_do_not_meet_on_a_shard(tmp_path):
    job = fake_audit.job_in(tmp_path)
    with job.shards.claimed(1) as held:
        assert held
        code = (
            "import sys; sys.path.insert(0, sys.argv[2]); import fake_audit; from pathlib import Path\n"
            "job, worked = fake_audit.run(Path(sys.argv[1])); print(worked.left, worked.written)"
        )
        command = [sys.executable, "-c", code, str(tmp_path), str(SCRIPT.parent)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert found.stdout.strip() == "[1] [0, 2, 3, 4, 5, 6]"
    assert fake_audit.run(tmp_path)[1].written == [1]


def test_another_plan_is_refused_and_says_what_differs(tmp_path):
    fake_audit.run(tmp_path)
    with pytest.raises(ValueError, match=r"another plan: shard_size was 8 and is now 9\. Give the same arguments"):
        fake_audit.job_in(tmp_path, shard_size=9)
    with pytest.raises(ValueError, match=r"manifest\.sha256 was .* manifest\.images was 50 and is now 51"):
        fake_audit.job_in(tmp_path, images=51)
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"shard_size": 8', '"shard_size": 16'))
    with pytest.raises(ValueError, match="was changed after the run began"):
        Plan.load(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Plan.load(tmp_path)
    with pytest.raises(ValueError, match="holds no audit"):
        read(tmp_path / "elsewhere")


def test_folders_that_cannot_be_written_to_are_said(tmp_path):
    (tmp_path / "shards").write_text("a file in its place")
    with pytest.raises(StoreError, match="cannot be written to"):
        fake_audit.job_in(tmp_path)


@pytest.fixture
def nobody():
    """A folder that everybody may read, and a process that may write only where nobody may, also where root runs it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    os.seteuid(os.getuid())
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_folders_that_are_read_only_are_said_and_lose_nothing(nobody, undisturbed):
    fake_audit.run(nobody / "begun", [0, 1])
    whole = fake_audit.contents(nobody / "begun")
    for folder in (nobody, *(path for path in nobody.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(StoreError, match="new cannot be written to: Permission denied"):
        fake_audit.run(nobody / "new")
    with pytest.raises(StoreError, match="begun cannot be written to: Permission denied"):
        fake_audit.run(nobody / "begun")
    assert len(read(nobody / "begun").table()) == 2 * fake_audit.SHARD
    os.seteuid(os.getuid())
    assert fake_audit.contents(nobody / "begun") == whole
    for folder in (nobody, *(path for path in nobody.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    fake_audit.run(nobody / "begun")
    assert fake_audit.contents(nobody / "begun") == undisturbed


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (2, 3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_byte_is_off_by_half_a_step(maps):
    kept = quantised(maps)
    largest = np.abs(maps).max((1, 2)).astype(np.float64)
    bound = largest / (2 * 127) * 1.0001 + 1e-37
    assert (np.abs(kept.values() - maps).max((1, 2)) <= bound).all()
    assert (np.sign(kept.values())[np.abs(kept.values()) > 0] == np.sign(maps)[np.abs(kept.values()) > 0]).all()


def test_summaries_of_maps_that_are_known():
    flat, corner, signed = np.ones((10, 10)), np.zeros((10, 10)), np.zeros((10, 10))
    corner[0, 9] = 4
    signed[4:6, 4:6] = [[1, -1], [-2, 2]]
    found = summaries(np.stack([flat, corner, signed, 0 * flat]))
    rows = [{name: float(numbers[n]) for name, numbers in found.items()} for n in range(4)]
    alike = {"mass_positive": 100, "mass_negative": 0, "entropy": 1, "gini": 0, "centre_y": 0.5, "centre_x": 0.5}
    assert rows[0] == pytest.approx({**alike, "border": 0.36, "top5": 0.05}, abs=1e-6)
    in_a_corner = {"mass_positive": 4, "mass_negative": 0, "entropy": 0, "gini": 0.99, "centre_y": 0.05}
    assert rows[1] == pytest.approx({**in_a_corner, "centre_x": 0.95, "border": 1, "top5": 1}, abs=1e-6)
    assert (rows[2]["mass_positive"], rows[2]["mass_negative"], rows[2]["border"]) == pytest.approx((3, 3, 0), abs=1e-6)
    assert rows[2]["centre_y"] == pytest.approx((2 * 0.45 + 4 * 0.55) / 6)
    assert np.isnan(rows[3]["gini"])
    assert rows[3]["mass_positive"] == 0


@pytest.mark.parametrize(
    ("images", "rows", "size"), [(100, 1, 64), (100, 785, 20), (1_000_000, 1, 500), (100_000_000, 1, 4096)]
)
def test_shards_are_small_enough_to_lose_one(images, rows, size):
    assert shard_size_for(images, rows) == size

"""Decoding in other processes: what hangs, crashes or is no picture costs one item, and the rest come in order."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from photo_folders import PREPROCESS, photograph

from xai_fast.audit.decoding.pool import Decoders, Request
from xai_fast.audit.sources.payload import Part

# A process whose decoder misbehaves on pictures of certain sizes.
MISBEHAVING = """
import os, time
from xai_fast.audit.decoding import worker
real = worker.decoded
def decoded(source, formats):
    photo = real(source, formats)
    if photo.width == 31:
        time.sleep(60)
    if photo.width == 32:
        os.abort()
    if photo.width == 33:
        print("noise where answers go", flush=True)
    return photo
worker.decoded = decoded
worker.main()
"""


@pytest.fixture(scope="module")
def decoders():
    command = (sys.executable, "-c", MISBEHAVING)
    settings = {"resize": 16, "crop": 16}
    with Decoders(settings, workers=2, ahead=4, time_out=1.0, command=command) as decoders:
        yield decoders


def asked(decoders, payloads):
    requests = [Request(7, n, lambda payload=payload: payload) for n, payload in enumerate(payloads)]
    return list(decoders.stream(requests))


def test_what_hangs_or_crashes_costs_one_item(decoders, tmp_path):
    paths = []
    for n, width in enumerate((20, 31, 22, 32, 33, 25)):
        photograph(n, (width, 20)).save(tmp_path / f"{n}.png")
        paths.append(tmp_path / f"{n}.png")
    found = asked(decoders, paths)
    assert [one.position for one in found] == list(range(6))
    assert [one.status for one in found] == ["ok", "timeout", "ok", "decode_error", "ok", "ok"]
    assert found[1].error == "decoding took more than 1 s"
    assert found[3].error == "the decoder crashed (signal 6, SIGABRT)"
    for n, one in enumerate(found):
        if one.status == "ok":
            view = PREPROCESS.view(photograph(n, (one.size[0], 20)))
            assert np.array_equal(one.pixels, np.asarray(view))


def test_bytes_parts_of_files_and_what_cannot_be_fetched(decoders, tmp_path):
    photograph(0).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "both").write_bytes(b"before" + content + b"behind")

    def gone():
        raise OSError(5, "Input/output error")

    requests = [
        Request(0, 0, lambda: content),
        Request(0, 1, lambda: Part(tmp_path / "both", 6, len(content))),
        Request(0, 2, gone),
        Request(0, 3, lambda: b""),
    ]
    first, second, third, fourth = decoders.stream(requests)
    assert np.array_equal(first.pixels, second.pixels)
    assert (third.status, third.error) == ("decode_error", "cannot be read (Input/output error)")
    assert fourth.error == "the file is empty"
    assert first.properties[0] == pytest.approx(
        np.asarray(PREPROCESS.view(photograph(0)).convert("L")).mean() / 255, abs=0.01
    )


def test_requests_are_taken_as_they_are_needed(decoders, tmp_path):
    photograph(0).save(tmp_path / "a.png")
    taken = []

    def requests():
        for n in range(50):
            taken.append(n)
            yield Request(0, n, lambda: tmp_path / "a.png")

    stream = decoders.stream(requests())
    next(stream)
    assert len(taken) <= 5
    stream.close()


def test_a_process_that_does_not_start_is_said():
    with Decoders(None, workers=1, ahead=1, command=(sys.executable, "-c", "1/0")) as decoders:
        (found,) = asked(decoders, [b"x"])
    assert (found.status, found.error) == ("decode_error", "the decoder did not start")

"""Memory that is watched: every way to write it shows, whoever writes it; what is not written is not read again."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import threading
import weakref
from array import array

import numpy as np
import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast import ops
from xai_fast.core import tensor_bytes, written
from xai_fast.core.tensor_bytes import TensorBytes
from xai_fast.core.written import Watch

PAGE = mmap.PAGESIZE
PAGES = 40
LIBC = ctypes.CDLL(None, use_errno=True)

watched = pytest.mark.skipif(written.cannot_watch() is not None, reason=f"{written.cannot_watch()}")


def memory():
    """Private memory of no file, that begins and ends inside pages."""
    return torch.arange(PAGES * PAGE // 4 + 300, dtype=torch.float32)[100:]


def span(*tensors):
    return array("q", [number for tensor in tensors for number in (tensor.data_ptr(), tensor.nbytes)])


def through_memory_of_the_process(x, place):
    with open("/proc/self/mem", "r+b", buffering=0) as file:
        file.seek(x.data_ptr() + 4 * place)
        file.write(b"\x00\x00\xc0\x7f")


def from_a_file(x, place):
    with open("/dev/urandom", "rb", buffering=0) as file:
        file.readinto(memoryview(x.numpy()).cast("B")[4 * place : 4 * place + 4])


def in_a_thread(x, place):
    thread = threading.Thread(target=lambda: x[place : place + 1].neg_())
    thread.start()
    thread.join()


def given_back(x, place):
    """The system takes the page away and gives zeros."""
    address = (x.data_ptr() + 4 * place) // PAGE * PAGE
    assert LIBC.madvise(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 4) == 0  # MADV_DONTNEED


WRITES = {
    "an index": lambda x, place: x.__setitem__(place, -1.0),
    "data": lambda x, place: x.data[place : place + 1].fill_(-1.0),
    "NumPy": lambda x, place: x.numpy().__setitem__(place, -1.0),
    "a view of bytes": lambda x, place: x.view(torch.uint8)[4 * place : 4 * place + 1].add_(1),
    "a storage": lambda x, place: x.untyped_storage().__setitem__(4 * (x.storage_offset() + place), 77),
    "memmove": lambda x, place: ctypes.memmove(x.data_ptr() + 4 * place, b"\x01\x02\x03\x04", 4),
    "memory of the process": through_memory_of_the_process,
    "a file": from_a_file,
    "another thread": in_a_thread,
    "given back": given_back,
}
INSIDE = {"first": PAGE // 4, "middle": PAGES * PAGE // 8, "last": (PAGES - 2) * PAGE // 4}


@watched
@pytest.mark.parametrize("place", INSIDE)
@pytest.mark.parametrize("write", WRITES)
def test_every_write_shows(write, place):
    x = memory()
    watch = Watch(span(x))
    assert not watch.written()
    WRITES[write](x, INSIDE[place])
    assert watch.written()
    assert not watch.written()
    WRITES[write](x, INSIDE[place])
    assert watch.written()


@watched
def test_what_a_kernel_writes_past_the_caches_shows():
    x = torch.ones(1, 1, 3000, 3000)
    watch, row = Watch(span(x)), torch.tensor([0])
    ops.path_points(x, x[:, :, :1, :1].expand_as(x), row, row, torch.tensor([0.5], dtype=torch.float64), x)
    assert watch.written()


@watched
def test_what_is_only_read_or_lies_beside_is_not_written():
    x = memory()
    whole = torch.as_strided(x, (x.numel() + 100,), (1,), 0)
    watch = Watch(span(x))
    x.sum(), x.clone(), x.numpy().max()
    whole[0] = 7.0  # on the page where x begins
    assert not watch.written()
    inside = sum(watch.rest[1::2])
    assert 0 < inside < 2 * PAGE


@watched
def test_all_who_watch_the_same_memory_are_told():
    x = memory()
    first = Watch(span(x))
    second = Watch(span(x[1000:]))
    assert not first.written()
    x[PAGE] = -1.0
    assert first.written()
    third = Watch(span(x))
    assert second.written()
    assert [watch.written() for watch in (first, second, third)] == [False] * 3


@watched
def test_memory_that_was_mapped_anew_counts_as_written():
    length = PAGES * PAGE
    LIBC.mmap.restype = ctypes.c_void_p
    private, fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0x10
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    address = LIBC.mmap(None, ctypes.c_size_t(length), rights, private, -1, ctypes.c_size_t(0))
    watch = Watch(array("q", [address, length]))
    assert sum(watch.rest[1::2]) == 0
    assert not watch.written()
    again = LIBC.mmap(
        ctypes.c_void_p(address), ctypes.c_size_t(length), rights, private | fixed, -1, ctypes.c_size_t(0)
    )
    assert again == address
    assert watch.written()
    assert not watch.written()
    assert LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length)) == 0


@watched
def test_a_child_watches_its_own_memory_and_its_parent_is_not_disturbed():
    x = memory()
    watch, untouched = Watch(span(x)), Watch(span(memory()))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            x[PAGE] = -1.0
            told = watch.written()
            quiet = not watch.written()
            x[2 * PAGE] = -1.0
            code = 0 if told and quiet and watch.written() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [one.written() for one in (watch, untouched)] == [False] * 2
    x[PAGE] = -2.0
    assert watch.written()


def shared(tmp_path):
    return memory().clone().share_memory_()


def of_a_file(tmp_path):
    memory().numpy().tofile(tmp_path / "weights")
    return torch.from_file(str(tmp_path / "weights"), shared=True, size=memory().numel())


def copied_from_a_file(tmp_path):
    memory().numpy().tofile(tmp_path / "weights")
    return torch.from_file(str(tmp_path / "weights"), shared=False, size=memory().numel())


@pytest.mark.parametrize("build", [shared, of_a_file, copied_from_a_file])
def test_what_others_can_write_is_read_every_time(build, tmp_path):
    x = build(tmp_path)
    assert sum(Watch(span(x)).rest[1::2]) == x.nbytes
    known = TensorBytes([x])
    for _ in range(4):
        assert known.same([x])
    child = os.fork()
    if child == 0:
        x[PAGE] = -1.0
        os._exit(0)
    os.waitpid(child, 0)
    assert known.same([x]) == (build is copied_from_a_file)  # whose child has pages of its own
    x[PAGE] = -1.0
    assert not known.same([x])


@pytest.fixture
def readings(monkeypatch):
    """How often all of some tensors were read."""
    done, own = [], tensor_bytes.hash_dense
    monkeypatch.setattr(tensor_bytes, "hash_dense", lambda tensors: done.append(1) or own(tensors))
    return done


@watched
def test_what_stays_the_same_is_read_no_more(readings):
    found = [memory(), torch.ones(3), memory()]
    known = TensorBytes(found)
    assert [known.same(found) for _ in range(5)] == [True] * 5
    assert len(readings) == 3  # when it was made, when it was asked first, when watching began
    found[2][PAGE] = -1.0
    assert not known.same(found)


@watched
def test_what_is_written_with_the_same_again_is_watched_anew_only_when_it_rests(readings):
    x = memory()
    known = TensorBytes([x])
    for _ in range(3):
        assert known.same([x])
    readings.clear()
    x[PAGE] = x[PAGE].clone()
    assert [known.same([x]) for _ in range(4)] == [True] * 4
    assert len(readings) == 3


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("asked", range(5))
@pytest.mark.parametrize("place", [0, 5, *INSIDE.values(), PAGES * PAGE // 4 + 199])
def test_a_change_shows_after_any_number_of_questions(place, asked, told, monkeypatch):
    if not told:
        monkeypatch.setattr(tensor_bytes, "cannot_watch", lambda: "not asked for")
    x = memory()
    found = [torch.ones(5), x]
    known = TensorBytes(found)
    for _ in range(asked):
        assert known.same(found)
    kept = x[place].item()
    x[place] = np.nextafter(np.float32(kept), np.float32(-9)).item()
    assert not known.same(found)
    assert not known.same(found)
    x[place] = kept
    assert known.same(found)
    found[0][2] = 5.0
    assert not known.same(found)


def test_other_memory_with_the_same_in_it_is_the_same():
    x = memory()
    known = TensorBytes([x])
    for _ in range(4):
        assert known.same([x])
    other = x.clone()
    assert known.same([other])
    other[PAGE] = -1.0
    assert not known.same([other])
    assert known.same([x])


def test_a_device_in_use_and_kernels_that_are_absent_are_reasons(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert "device" in written.cannot_watch()
    x = memory()
    assert sum(Watch(span(x)).rest[1::2]) == x.nbytes
    monkeypatch.undo()
    monkeypatch.setattr(written, "no_library", lambda: "no compiled kernels")
    assert written.cannot_watch() == "no compiled kernels"


class Wide(nn.Module):
    """A network with a weight of many pages."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden, self.head = nn.Linear(3 * 8 * 8, 400), nn.Linear(400, 4)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.flatten(1))))


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_an_engine_answers_as_the_model_now_is_though_it_rested(told, monkeypatch):
    if not told:
        monkeypatch.setattr(tensor_bytes, "cannot_watch", lambda: "not asked for")
    model = Wide().eval()
    engine, x = xf.Engine(model), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for change in (None, 0.5, None, -2.0):
        if change is not None:
            model.hidden.weight.data[200:].mul_(change)
        with torch.no_grad():
            expected = model.double()(x.double())[:, 1]
        model.float()
        for _ in range(5):
            assert torch.allclose(engine.scores(x, 1).double(), expected, atol=1e-5)
    # The same weights in place, so that watching begins, and then a change that only the page tables know.
    for value in (3.0, -3.0):
        for _ in range(5):
            engine.scores(x, 1)
        ctypes.memset(model.hidden.weight.data_ptr() + 200 * 192 * 4, 0, 100 * 192 * 4)
        model.head.weight.data[1, 210] = value
        with torch.no_grad():
            expected = model(x)[:, 1]
        assert torch.allclose(engine.scores(x, 1), expected, atol=1e-5)


def test_nothing_is_kept_alive():
    x = memory()
    known = TensorBytes([x])
    for _ in range(4):
        assert known.same([x])
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None
    assert known.same([memory()])  # wherever it lies, and no error where memory is gone

"""What every test shares: fixed seeds, the helpers of this folder on the path, memory that starts as NaN."""

from __future__ import annotations

import gc
import os
import random
import sys
from pathlib import Path

_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
if _WORKERS:  # they share the processors instead of fighting for them; libraries ask when they are imported
    _processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(os.environ.get("OMP_NUM_THREADS") or _processors) // _WORKERS))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

# Tests that take many seconds each: they compile kernels, interpret them or run examples.
LONG = ("test_cuda_kernels.py", "test_triton.py", "test_with_kernels_interpreted", "test_examples.py")
_HELPERS = str(Path(__file__).parent)
if _HELPERS not in sys.path:
    sys.path.insert(0, _HELPERS)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")
    parser.addoption("--no-poison", action="store_true", help="leave torch.empty as it is, not filled with NaN")


def pytest_configure(config):
    """Torch, which counts processors for itself, takes as many threads as a worker has."""
    if _WORKERS:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(config, items):
    """The longest come first: no worker waits for another's last test, and what they build is built in one of them."""
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONG))
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """The million objects that collected tests are stay to the end: no garbage collection has to walk over them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeds():
    """Every test draws the same numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def prepared_at_once():
    """Calls run on what is prepared, small as they are, but where a test says otherwise."""
    from xai_fast.engine import tiers

    with tiers.assuming("prepared"):
        yield


@pytest.fixture
def poison(request, monkeypatch):
    """New floating tensors start as NaN, so that an element that nobody wrote shows."""
    if request.config.getoption("--no-poison"):
        return
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def filled(tensor):
        return tensor.fill_(torch.nan) if tensor.is_floating_point() and not tensor.requires_grad else tensor

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: filled(empty(*args, **kwargs)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: filled(new_empty(self, *a, **k)))

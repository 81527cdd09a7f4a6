"""The contract on a make-believe CUDA device: the same numbers, nothing that mixes devices, no waiting per chunk."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from make_believe_gpu import OnDevice, device, module_to_device, to_device, to_host

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))

import test_contract as contract
from subjects import Small, shared, signals
from table import CASES, FIRST, OF_ONE_PASS

import xai_fast as xf
from xai_fast.graph.processor import assuming
from xai_fast.ops import all_ops

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="the kernels run in this very session")
def test_with_kernels_interpreted():
    """The numbers of every method once more, where Triton's kernels make them over memory of the device alone."""
    pytest.importorskip("triton")
    tests = [Path(__file__), Path(__file__).with_name("test_make_believe_gpu.py")]
    chosen = "replica_in_float64 or make_believe"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"[1-9]\d* passed", done.stdout), done.stdout[-4000:]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def subject(request, monkeypatch):
    """`Small` has attention in tests of a case that needs it."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    monkeypatch.setattr(Small, "attends", getattr(params.get("case"), "needs_attention", False))


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Everything that a device may do faster is done, whatever the clock would say here.

    Interpreted, kernels over a model's steps and weights would take minutes; they are compared by themselves.
    """
    if INTERPRETED:
        hashing = all_ops()["byte_hash"]
        monkeypatch.setattr(hashing, "_offers", [offer for offer in hashing._offers if offer.backend != "triton"])
    with assuming(joined=not INTERPRETED, recorded=True):
        yield


@cache
def twin(model):
    """The model on the device; what it writes down of its rows goes into the same record."""
    return module_to_device(copy.deepcopy(model))


def moved(model):
    """The same on the device of a model, or of an engine with all of its settings."""
    if not isinstance(model, xf.Engine):
        return twin(model)
    own = model.settings
    return xf.Engine(twin(model.model), **{name: getattr(own, name) for name in own.__dataclass_fields__})


def attribute(case, model, inputs, target=None, **call):
    """As the contract's own, but on the device, whence the map comes back; a run that mixes devices raises."""
    target = case.target(inputs) if target is None else target
    with device():
        values = case.on(moved(model)).attribute(to_device(inputs), target, **case.call, **call)
        assert isinstance(values, OnDevice)
        return to_host(values)


@pytest.fixture
def contract_there(monkeypatch):
    """The contract's tests run their methods on the device; what they compare with stays on the CPU."""
    monkeypatch.setattr(contract, "attribute", attribute)


def ties(case):
    """Whether maxima tie in a reference of one colour: which of them counts is rounding's affair and the layout's."""
    return case.method == "DeepLiftShap" and isinstance(case.settings["baselines"], float)


OTHERS = pytest.mark.parametrize("case", [case for case in CASES if case not in FIRST], ids=str)
OF_EACH = [next(case for case in CASES if case.method == first.method and not ties(case)) for first in FIRST]
of_each = pytest.mark.parametrize("case", OF_EACH, ids=lambda case: case.method)

# The contract's own tests, which see no difference.


@of_each
def test_equals_its_replica_in_float64(case, contract_there):
    contract.test_equals_its_replica_in_float64(case, None)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in FIRST + OF_EACH], ids=str)
def test_any_case_equals_its_replica_in_float64(case, contract_there):
    contract.test_equals_its_replica_in_float64(case, None)


@pytest.mark.slow
@contract.every
def test_equals_its_replica_in_float32(case, contract_there):
    contract.test_equals_its_replica_in_float32(case, None)


@pytest.mark.parametrize("case", [case for case in OF_EACH if case.method not in OF_ONE_PASS], ids=str)
def test_equals_its_replica_on_the_plain_tier(case, contract_there):
    contract.test_equals_its_replica_on_the_plain_tier(case, None)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [1, 3])
@contract.first
def test_signals_and_volumes(case, axes, contract_there):
    contract.test_signals_and_volumes(case, axes)


@pytest.mark.slow
@contract.first
def test_batch_size_changes_nothing(case, contract_there):
    contract.test_batch_size_changes_nothing(case, torch.float32)


@pytest.mark.slow
@contract.first
def test_a_batch_equals_its_samples(case, contract_there):
    contract.test_a_batch_equals_its_samples(case)


@contract.first
def test_plans_agree(case, contract_there):
    contract.test_plans_agree(case)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@contract.first
def test_dtype_of_the_inputs_comes_back(case, dtype, contract_there):
    contract.test_dtype_of_the_inputs_comes_back(case, dtype)


@pytest.mark.slow
@contract.first
def test_a_half_precision_model(case, contract_there):
    contract.test_a_half_precision_model(case)


@pytest.mark.parametrize("mode", ["fast", "turbo"])
@contract.first
def test_modes_are_as_close_as_half_precision(case, mode):
    model, inputs = shared(), signals()
    expected = contract.attribute(case, model, inputs, contract.TARGETS)
    actual = attribute(case, xf.Engine(model, mode=mode), inputs, contract.TARGETS)
    together = torch.corrcoef(torch.stack([actual.flatten().double(), expected.flatten().double()]))[0, 1]
    assert together > 0.99


# What goes over between the host and the device.


def crossings(case, settings, n, batch_size):
    """(reads, copies) of a call on n inputs, once everything is prepared, and the ledger of it."""
    model, inputs = shared(), signals(n)
    with device() as ledger:
        there = to_device(inputs)
        method = case.on(xf.Engine(twin(model), batch_size=batch_size, **settings))
        for _ in range(3):  # what comes for the second time is tried
            ledger.clear()
            method.attribute(there, case.target(inputs), **case.call)
        return ledger.totals, str(ledger)


def sizes(case):
    """Inputs, and rows per forward such that they run in one or two chunks, and in at least four times as many."""
    rows = case.on(shared()).cost(signals(1).shape[1:]).forwards
    return (4, 4, 1) if rows < 8 else (1, rows, rows // 4)


_CONVERGED = "a decomposition of every map, which asks on the device whether it has converged"
_REFUSED = "its formula is refused where a chunk's gradients are not those of one linear layer"
# What has to ask the device once more for every chunk of clean inputs, and why.
ASK_PER_CHUNK = {
    **dict.fromkeys(("EigenCAM", "EigenGradCAM", "SegEigenCAM", "KPCACAM"), _CONVERGED),
    "CAM": _REFUSED,
}


def asks_per_chunk(case):
    return case.method in ASK_PER_CHUNK or bool(case.settings.get("eigen_smooth"))


def assert_constant(case, **settings):
    n, large, small = sizes(case)
    (reads, copies), ledger = crossings(case, settings, n, large)
    (more_reads, more_copies), more = crossings(case, settings, n, small)
    told = f"in chunks of {large}\n{ledger}\nin chunks of {small}\n{more}"
    assert more_copies == copies, told
    assert (more_reads > reads) if asks_per_chunk(case) else (more_reads == reads), told


@contract.first
def test_nothing_goes_over_per_chunk(case):
    assert_constant(case)


# What has to ask the device once more for every input: which of a layer's maps are equal, so that each is shown once.
ASK_PER_INPUT = ("ScoreCAM", "ISCAM")


@pytest.mark.slow
@contract.first
def test_nothing_is_read_per_input(case):
    (reads, _), one = crossings(case, {}, 1, 64)
    (more_reads, _), three = crossings(case, {}, 3, 64)
    told = f"one input\n{one}\nthree\n{three}"
    assert (more_reads > reads) if case.method in ASK_PER_INPUT else (more_reads == reads), told


@pytest.mark.slow
@OTHERS
def test_nothing_goes_over_per_chunk_in_any_case(case):
    assert_constant(case)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"plan": "dense"}, {"mode": "fast"}, {"mode": "turbo"}], ids=str)
@contract.first
def test_nothing_goes_over_per_chunk_in_any_mode(case, settings):
    assert_constant(case, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["local", "tail"])
@contract.first
def test_nothing_goes_over_per_chunk_in_any_plan(case, plan):
    try:
        assert_constant(case, plan=plan)
    except ValueError as error:
        if "does not apply" not in str(error):
            raise
        pytest.skip(str(error))

"""Fused steps and recorded forwards on a make-believe CUDA device: right numbers, seen changes, bounded memory.

There cuDNN's operator computes what its description says and refuses what it refuses, and a recording is repeated
kernel by kernel on the memory where it was made, without Python.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import make_believe_gpu as gpu
import pytest
import torch
from make_believe_gpu import device, module_to_device, to_device, to_host
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))

import xai_fast as xf
from xai_fast.core.sharing import held
from xai_fast.engine.decisions import Decisions
from xai_fast.graph.fused import FusedConvolution, FusedResidual, Geometry, implementation_for
from xai_fast.graph.fused.cuda import Cuda, clock, convolution, recorded, recorder
from xai_fast.graph.fused.cuda.convolution import JoinedConvolution
from xai_fast.graph.fused.parts import NOTHING, RELU, Activation
from xai_fast.graph.fused.public import PublicOperators
from xai_fast.graph.processor import assuming
from xai_fast.graph.timed import Record, recording

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there and needs no double")
GEOMETRIES = [
    Geometry((1, 1), (1, 1), (1, 1), 1),
    Geometry((2, 1), (0, 2), (1, 1), 1),
    Geometry((1, 1), (2, 2), (2, 2), 1),
    Geometry((1, 2), (1, 0), (1, 1), 4),
    Geometry((1, 1), (1, 1), (1, 1), 8),
]
DTYPES = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
ROUNDING = {torch.float64: 1e-13, **DTYPES}


def images(*shape, seed=0, dtype=torch.float32):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype).contiguous(memory_format=torch.channels_last)


def source_of(geometry=GEOMETRIES[0], dtype=torch.float32, bias=True):
    weight = images(16, 8 // geometry.groups, 3, 3, seed=1, dtype=dtype)
    offset = torch.randn(16, generator=torch.Generator().manual_seed(2)).to(dtype) if bias else None
    there = to_device(weight), None if offset is None else to_device(offset)
    return Cuda().convolution(*there, geometry, short_sums=False), weight, offset


@pytest.fixture
def asked(monkeypatch):
    """How often cuDNN's operator was called, by its number of inputs."""
    calls = []
    for key, run in list(gpu.CUDNN.items()):
        name = str(key)
        monkeypatch.setitem(gpu.CUDNN, key, lambda *a, run=run, name=name: calls.append(name) or run(*a))
    return calls


# Which implementation runs


def test_the_implementation_is_there_where_the_device_is():
    where = torch.device("cuda")
    assert type(implementation_for(where, torch.float32)) is PublicOperators
    with device():
        for dtype in (torch.float64, *DTYPES):
            assert type(implementation_for(where, dtype)) is Cuda
        assert not isinstance(implementation_for(torch.device("cpu"), torch.float64), Cuda)


# Convolution, bias, sum and ReLU in one


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@torch.no_grad()
def test_joined_convolutions_are_the_separate_ones(geometry, dtype, bias, asked):
    with device(), assuming(joined=True):
        source, weight, offset = source_of(geometry, dtype, bias)
        for rows in (3, 1):
            x = images(rows, 8, 9, 7, dtype=dtype)
            settings = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
            truth = F.conv2d(x.double(), weight.double(), None if offset is None else offset.double(), *settings)
            other = images(*truth.shape, seed=3, dtype=dtype)
            for _ in range(3):
                there, sum_there = to_device(x), to_device(other)
                for activation in (RELU, NOTHING, Activation("silu")):
                    found = to_host(FusedConvolution(source, activation)(there))
                    close(found, activation(truth.clone()), dtype)
                total = FusedResidual(source, rectified=True, consumes=True)(there, sum_there)
                close(to_host(total), (truth + other).relu(), dtype)
                assert torch.equal(to_host(there), x)
                assert torch.equal(to_host(sum_there), other) or not source.refused
        assert not source.refused
    assert {name.split(".")[1] for name in asked} == {"cudnn_convolution_relu", "cudnn_convolution_add_relu"}


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@torch.no_grad()
def test_one_pass_behind_a_convolution_is_what_several_give(geometry, dtype, asked):
    with device(), assuming(joined=True):
        torch.backends.cudnn.is_available = lambda: False
        source, weight, offset = source_of(geometry, dtype)
        x = images(3, 8, 9, 7, dtype=dtype)
        settings = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
        truth = F.conv2d(x.double(), weight.double(), offset.double(), *settings)
        other = images(*truth.shape, seed=3, dtype=dtype)
        for _ in range(3):
            close(to_host(FusedConvolution(source, RELU)(to_device(x))), truth.relu(), dtype)
            sum_there = to_device(other)
            total = FusedResidual(source, rectified=True, consumes=True)(to_device(x), sum_there)
            close(to_host(total), (truth + other).relu(), dtype)
        assert list(source._met.values()) == [convolution.TWO] * 2
    assert asked == []


def close(found, truth, dtype):
    off = (found.double() - truth).abs().max().item()
    assert found.dtype is dtype
    assert off <= ROUNDING[dtype] * max(truth.abs().max().item(), 1.0), off


def runs(source, x, times=3):
    """The last answer of several, which is where a choice has been made."""
    fused = FusedConvolution(source, RELU)
    return [fused(to_device(x)) for _ in range(times)][-1]


@torch.no_grad()
def test_a_size_is_tried_when_it_comes_again_and_never_twice(asked):
    with device() as ledger, assuming(joined=True):
        source, *_ = source_of()
        x = images(2, 8, 6, 6)
        runs(source, x, 1)
        assert asked == []  # what is left over comes once
        runs(source, x, 1)
        tried = len(asked)
        assert tried > 1
        ledger.clear()
        there = to_device(x)
        FusedConvolution(source, RELU)(there)
        assert len(asked) == tried + 1
        assert ledger.totals == (0, 1), str(ledger)  # the input alone went over


@torch.no_grad()
def test_a_relu_that_hides_nan_is_not_joined(asked, monkeypatch):
    monkeypatch.setattr(gpu, "HIDES_NAN", [True])
    x = images(2, 8, 6, 6)
    x[0, 0, 0, 0] = torch.nan
    with device(), assuming(joined=True):
        source, *_ = source_of()
        runs(source, images(2, 8, 6, 6))
        assert "hides NaN" in source.refused
        assert list(source._met.values()) == [convolution.TWO]
        asked.clear()
        assert to_host(runs(source, x))[0].isnan().any()
        assert asked == []
        residual = FusedResidual(source, rectified=True, consumes=False)
        for _ in range(3):
            total = residual(to_device(images(2, 8, 6, 6)), to_device(torch.full((2, 16, 6, 6), torch.nan)))
            assert to_host(total).isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("wrong", ["numbers", "shape", "error"])
def test_an_operator_that_is_wrong_or_fails_is_not_joined(wrong, monkeypatch):
    def broken(*arguments):
        if wrong == "error":
            raise RuntimeError("cuDNN error: no engine\nfor these sizes")
        y = right(*arguments)
        return y * 1.001 if wrong == "numbers" else y[..., :-1]

    key = torch.ops.aten.cudnn_convolution_relu.default
    right = gpu.CUDNN[key]
    monkeypatch.setitem(gpu.CUDNN, key, broken)
    x = images(2, 8, 6, 6)
    with device(), assuming(joined=True):
        source, weight, offset = source_of()
        found = to_host(runs(source, x))
    assert source.refused
    assert "\n" not in source.refused
    close(found, F.conv2d(x.double(), weight.double(), offset.double(), padding=1).relu(), torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("best", [convolution.ONE, convolution.TWO, convolution.SEVERAL])
def test_the_fastest_of_what_is_right_runs_and_the_record_says_so(best, monkeypatch, asked):
    x = images(2, 8, 6, 6)
    order = [convolution.ONE, convolution.TWO, convolution.SEVERAL]
    times = iter([1.0 if way == best else 2.0 for way in order])
    monkeypatch.setattr(convolution, "seconds", lambda call, where: next(times))
    found = Record()
    with device(), recording(found):
        source, *_ = source_of()
        runs(source, x)
        asked.clear()
        runs(source, x, 1)
        assert bool(asked) == (best == convolution.ONE)
        ((case, answer),) = found.entries[convolution.QUESTION].items()
        assert answer == best
        assert "2 rows of (8, 6, 6) by (16, 8, 3, 3)" in case
    # Another run repeats it, and times nothing; an empty record keeps kernels apart.
    for record, way in ((Record(found.entries, given=True), best), (Record(given=True), convolution.SEVERAL)):
        with device(), recording(record):
            source, *_ = source_of()
            runs(source, x)
            assert list(source._met.values()) == [way]
    # What is recorded of another device holds only where it is right here.
    monkeypatch.setattr(gpu, "HIDES_NAN", [True])
    with device(), recording(Record(found.entries, given=True)):
        source, *_ = source_of()
        runs(source, x)
        assert list(source._met.values()) == [convolution.SEVERAL if best == convolution.ONE else best]


@torch.no_grad()
@pytest.mark.parametrize("flag", ["deterministic", "disabled", "wanted"])
def test_flags_of_the_user_keep_kernels_apart(flag, asked):
    x = images(2, 8, 6, 6)
    with device(), assuming(joined=True):
        source, *_ = source_of()
        runs(source, x)
        assert asked
        asked.clear()
        before = torch.get_deterministic_debug_mode()
        try:
            if flag == "wanted":
                torch.use_deterministic_algorithms(True)
            with torch.backends.cudnn.flags(enabled=flag != "disabled", deterministic=flag == "deterministic"):
                runs(source, x)
        finally:
            torch.set_deterministic_debug_mode(before)
        assert asked == []


@torch.no_grad()
def test_another_precision_is_tried_anew(asked):
    x = images(2, 8, 6, 6)
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        with device(), assuming(joined=True):
            source, *_ = source_of()
            runs(source, x)
            for precision in ("tf32", "ieee"):
                torch.backends.cudnn.conv.fp32_precision = precision
                asked.clear()
                runs(source, x, 1)
                assert (asked == []) == (precision != before)
                runs(source, x, 1)
                assert asked
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


def test_what_is_not_joined_runs_by_public_operators(asked):
    with device(), assuming(joined=True):
        source, weight, offset = source_of()
        assert isinstance(source, JoinedConvolution)
        x = images(2, 8, 6, 6)
        for _ in range(3):
            leaf = to_device(x).requires_grad_()
            FusedConvolution(source, RELU)(leaf).sum().backward()
            expected = x.clone().requires_grad_()
            F.conv2d(expected, weight, offset, padding=1).relu().sum().backward()
            torch.testing.assert_close(leaf.grad.held, expected.grad)
            with torch.no_grad():
                assert FusedConvolution(source, RELU)(to_device(x[:0])).shape == (0, 16, 6, 6)
                FusedConvolution(source, RELU).unpadded()(to_device(x))
                FusedResidual(source, rectified=False, consumes=False)(to_device(x), to_device(images(2, 16, 6, 6)))
    assert asked == []


@torch.no_grad()
def test_few_sizes_are_remembered():
    with device(), assuming(joined=True):
        source, *_ = source_of()
        for side in range(4, 90):
            runs(source, images(1, 8, side, 3), 1)
        assert len(source._met) <= 64


# Recorded forwards


class Residual(nn.Module):
    """Convolutions with normalisation and ReLU, a residual sum, pooling and a linear layer; awake."""

    def __init__(self, extra=None):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.body_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.out, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)
        self.extra = extra if extra is not None else nn.Identity()
        generator = torch.Generator().manual_seed(4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.out(self.body_norm(self.body(x)).relu())).relu()
        return self.head(self.extra(x).mean((2, 3)))


def model_of(extra=None, dtype=torch.float32):
    return Residual(extra).eval().to(dtype)


def inputs_of(n=2, seed=0, dtype=torch.float32):
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def engine_of(model, **settings):
    return xf.Engine(module_to_device(copy.deepcopy(model)), **settings)


def whole_of(engine, inputs):
    """What runs the prepared model's forward as a whole."""
    prepared = engine.prepared(frozenset(), inputs)
    return prepared.captured[tuple(inputs.shape[1:])]._whole


def ask(engine, inputs):
    return to_host(engine.scores(to_device(inputs), 1))


@pytest.fixture
def recorded_there():
    with device() as ledger, assuming(recorded=True, joined=True):
        yield ledger


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_forward_that_comes_again_is_recorded_and_right(dtype, recorded_there):
    model = model_of()
    engine = engine_of(model.to(dtype))
    close = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 5e-2)
    for seed in range(8):
        inputs = inputs_of(2, seed, dtype)
        truth = copy.deepcopy(model).double()(inputs.double())[:, 1].detach()
        found = ask(engine, inputs)
        assert (found.double() - truth).abs().max() <= close * truth.abs().max()
    whole = whole_of(engine, to_device(inputs))
    assert isinstance(whole, recorded.Recorded)
    assert whole.refused == ""
    assert len(whole._recordings) == 1


def test_answers_are_not_written_over_by_the_next(recorded_there):
    engine = engine_of(model_of())
    captured = None
    for seed in range(6):
        ask(engine, inputs_of(2, seed))
    prepared = engine.prepared(frozenset(), to_device(inputs_of()))
    captured = prepared.captured[(3, 12, 12)]
    with torch.no_grad():
        batch = [to_device(inputs_of(2, seed)).contiguous(memory_format=torch.channels_last) for seed in (1, 2)]
        answers = [captured(one) for one in batch]
        kept = [to_host(one).clone() for one in answers]
        answers[1].zero_()
        again = captured(batch[0])
    assert captured.grown == 1
    assert torch.equal(to_host(answers[0]), kept[0])
    assert not torch.equal(kept[0], kept[1])
    assert torch.equal(to_host(again), kept[0])


def test_what_is_repeated_runs_no_python(recorded_there, monkeypatch):
    engine = engine_of(model_of())
    for seed in range(6):
        ask(engine, inputs_of(2, seed))
    whole = whole_of(engine, to_device(inputs_of()))
    monkeypatch.setattr(whole._program, "run", lambda given: pytest.fail("the program ran"))
    ask(engine, inputs_of(2, 9))


def test_a_changed_weight_is_seen(recorded_there):
    model = module_to_device(model_of())
    engine, inputs = xf.Engine(model), inputs_of()
    for _ in range(6):
        before = ask(engine, inputs)
    with torch.no_grad():
        model.stem.weight.mul_(1.5)
    after = [ask(engine, inputs) for _ in range(6)]
    with torch.no_grad():
        truth = to_host(model(to_device(inputs)))[:, 1]
    for found in after:
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after[0], rtol=1e-3)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.rows.append(len(x)) if isinstance(x, torch.Tensor) else None
        return x


class Halves(nn.Module):
    """Asks on the host whether a map is large."""

    def forward(self, x):
        return x / 2 if isinstance(x, torch.Tensor) and bool((x > 1e9).any()) else x


def hooked(model):
    model.body.register_forward_hook(lambda module, args, output: output * 1.0)
    return model


REFUSED = {
    "a leaf that counts": lambda: model_of(Counts()),
    "a leaf that asks": lambda: model_of(Halves()),
    "a hook": lambda: hooked(model_of()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_more_than_compute_is_not_recorded(name, recorded_there):
    model = REFUSED[name]()
    engine = engine_of(model)
    truth = model(inputs_of())[:, 1].detach()
    counting = [part for part in model.modules() if isinstance(part, Counts)]
    for _ in range(6):
        seen = [len(part.rows) for part in counting]
        torch.testing.assert_close(ask(engine, inputs_of()), truth, rtol=1e-4, atol=1e-5)
        assert all(len(part.rows) > before for part, before in zip(counting, seen, strict=True))
    captured = engine.prepared(frozenset(), to_device(inputs_of())).captured
    for one in captured.values():
        assert one._whole.refused
        assert one.grown == 0


def number(made):
    return made.sum().item()


def sent(made):
    return torch.empty_like(made).copy_(torch.ones(made.shape))


def breaks_off(made):
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a library that allocates\nby itself")


@pytest.mark.parametrize(
    ("also", "reason"), [(number, "makes the host wait"), (sent, "copies between"), (breaks_off, "that allocates")]
)
def test_what_cannot_be_recorded_is_told_and_runs(also, reason, recorded_there, monkeypatch):
    """No description of the steps tells of it."""
    monkeypatch.setattr(recorder, "_FAILED", [])
    engine, inputs, truth = engine_of(model_of()), inputs_of(), model_of()(inputs_of())[:, 1].detach()
    ask(engine, inputs)
    whole = whole_of(engine, to_device(inputs))
    run, stream = whole._program.run, torch.cuda.current_stream()

    def more(given):
        made = run(given)
        also(next(iter(made.values())))
        return made

    monkeypatch.setattr(whole._program, "run", more)
    for _ in range(6):
        torch.testing.assert_close(ask(engine, inputs), truth, rtol=1e-4, atol=1e-5)
    assert torch.cuda.current_stream() is stream
    assert "cannot be recorded" in whole.refused
    assert reason in whole.refused
    assert "\n" not in whole.refused
    assert whole.grown == 0
    # One that broke off was torch's last: what it leaves behind is not built upon.
    assert len(recorder._FAILED) == (also is breaks_off)
    other = engine_of(model_of())
    for _ in range(6):
        torch.testing.assert_close(ask(other, inputs), truth, rtol=1e-4, atol=1e-5)
    assert whole_of(other, to_device(inputs)).grown == (also is not breaks_off)


@pytest.mark.parametrize("broken", ["nothing", "half"])
def test_a_recording_with_other_numbers_is_not_used(broken, recorded_there, monkeypatch):
    def replay(tape):
        for call in tape._calls[: len(tape._calls) // 2] if broken == "half" else ():
            func, args, kwargs, own = call
            made = [one for one in gpu.tree_leaves(func(*args, **kwargs)) if isinstance(one, torch.Tensor)]
            for memory, fresh in zip(own, made, strict=True):
                if memory is not None:
                    memory.copy_(fresh)

    monkeypatch.setattr(gpu.Tape, "replay", replay)
    engine = engine_of(model_of())
    for seed in range(6):
        inputs = inputs_of(2, seed)
        truth = model_of()(inputs)[:, 1].detach()
        torch.testing.assert_close(ask(engine, inputs), truth, rtol=1e-4, atol=1e-5)
    whole = whole_of(engine, to_device(inputs))
    assert "other numbers" in whole.refused
    assert whole.grown == 0


def test_sizes_and_memory_are_bounded(recorded_there, monkeypatch):
    engine = engine_of(model_of())
    for rows in range(1, 9):
        for seed in range(5):
            inputs = inputs_of(rows, seed)
            truth = model_of()(inputs)[:, 1].detach()
            torch.testing.assert_close(ask(engine, inputs), truth, rtol=1e-4, atol=1e-5)
    whole = whole_of(engine, to_device(inputs))
    assert len(whole._recordings) == recorded._MOST
    assert {next(iter(one.given.values())).shape[0] for one in whole._recordings.values()} == {5, 6, 7, 8}
    before = sum(held(whole).values())
    taken = sum(one.beyond for one in whole._recordings.values())
    assert taken > 0
    assert before > taken  # what the device keeps between steps counts for the store
    monkeypatch.setattr(recorded, "_LARGEST", 0)
    grown = whole.grown
    for seed in range(6):
        ask(engine, inputs_of(9, seed))
    assert whole.grown == grown  # kernels over large batches hide their launches


def test_the_store_counts_what_is_recorded_and_lets_go_of_it(recorded_there):
    model = module_to_device(model_of())
    engine = xf.Engine(model, memory_limit=1)
    for _ in range(6):
        ask(engine, inputs_of())
    whole = whole_of(engine, to_device(inputs_of()))
    use = engine.store.contents().use
    (sizes,) = (found for (_, shape), found in use._bytes.items() if shape == (3, 12, 12))
    assert sum(sizes.values()) >= whole._recordings[next(iter(whole._recordings))].beyond
    for _ in range(2):  # what was looked at counts as used
        ask(engine, inputs_of()[..., :10, :10])
    assert all((3, 12, 12) not in prepared.captured for prepared in engine.store.contents().prepared.values())


def test_other_streams_wait_for_the_memory(recorded_there):
    engine = engine_of(model_of())
    for _ in range(6):
        ask(engine, inputs_of())
    other = gpu.Stream()
    with torch.cuda.stream(other):
        ask(engine, inputs_of())
        assert other.waited == [gpu.STREAMS[0]]
        ask(engine, inputs_of())
        assert other.waited == [gpu.STREAMS[0]]
    gpu.STREAMS[0].waited.clear()
    ask(engine, inputs_of())
    assert gpu.STREAMS[0].waited == [other]


def test_a_recording_holds_for_the_flags_under_which_it_was_made(recorded_there):
    engine = engine_of(model_of())
    for _ in range(6):
        ask(engine, inputs_of())
    whole = whole_of(engine, to_device(inputs_of()))
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "ieee" if before != "ieee" else "tf32"
        for _ in range(6):
            ask(engine, inputs_of())
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    assert whole.grown == 2


@pytest.mark.parametrize("generation", ["old", "new"])
def test_flags_are_read_whichever_way_they_were_set(generation):
    """Torch's older names raise where the newer were used."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    found = set()
    try:
        for allowed in (True, False):
            if generation == "old":
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
            else:
                conv.fp32_precision, matmul.fp32_precision = ["tf32" if allowed else "ieee"] * 2
            found.add(clock.flags())
    finally:
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = False
        conv.fp32_precision, matmul.fp32_precision = before
    assert len(found) == 2


def test_it_is_recorded_where_that_is_faster_and_the_plan_says_so(monkeypatch):
    for faster in (True, False):
        times = iter([1.0, 2.0] if faster else [2.0, 1.0])
        monkeypatch.setattr(recorded, "seconds", lambda call, where, times=times: next(times))
        with device(), assuming(joined=False):
            engine = engine_of(model_of())
            for _ in range(6):
                ask(engine, inputs_of())
            told = engine.explain_plan(xf.Occlusion(engine, window=4), to_device(inputs_of()))
            found = [line for line in told.splitlines() if "2 rows of (3, 12, 12), torch.float32" in line]
            assert [line.rpartition(": ")[2] for line in found] == ["as one" if faster else "step by step"]
            assert whole_of(engine, to_device(inputs_of())).grown == faster
            kept = Decisions.from_json(engine.decisions.to_json())
        with device(), assuming(joined=False):  # times nothing
            engine = engine_of(model_of(), decisions=kept)
            for _ in range(6):
                ask(engine, inputs_of())
            assert whole_of(engine, to_device(inputs_of())).grown == faster
        with device(), assuming(joined=False):
            engine = engine_of(model_of(), decisions=Decisions())
            for _ in range(6):
                ask(engine, inputs_of())
            assert whole_of(engine, to_device(inputs_of())).grown == 0


def test_nothing_is_recorded_under_autograd(recorded_there):
    engine = engine_of(model_of())
    for _ in range(6):
        ask(engine, inputs_of())
    captured = engine.prepared(frozenset(), to_device(inputs_of())).captured[(3, 12, 12)]
    repeats = []
    for one in captured._whole._recordings.values():
        one.repeat = lambda: repeats.append(1)
    with torch.enable_grad():
        answer = captured._whole.run({0: to_device(inputs_of()).requires_grad_()})
    assert repeats == []
    assert next(iter(answer.values())).requires_grad


@pytest.mark.parametrize("method", ["Occlusion", "RISE", "IntegratedGradients", "SmoothGrad", "GradCAM", "AblationCAM"])
@pytest.mark.parametrize("plan", ["dense", "auto"])
def test_maps_are_the_models_own(method, plan, recorded_there):
    settings = {
        "Occlusion": {"window": 3, "stride": 2},
        "RISE": {"n_masks": 40},
        "GradCAM": {"layer": "body"},
        "AblationCAM": {"layer": "body"},
        "SmoothGrad": {"n_samples": 20},
    }.get(method, {})
    inputs = inputs_of()
    truth = getattr(xf, method)(xf.Engine(model_of().double(), plan="dense"), **settings).attribute(inputs.double(), 1)
    engine = engine_of(model_of(), plan=plan, batch_size=4)
    for _ in range(3):
        found = to_host(getattr(xf, method)(engine, **settings).attribute(to_device(inputs), 1))
        assert (found.double() - truth).abs().max() <= 1e-4 * truth.abs().max()


class Places(nn.Module):
    """A forward that makes a tensor wherever the caller's default is."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.body(x).relu()
        return self.head((x + torch.arange(x.shape[-1]) / 10).mean((2, 3)))


def test_steps_make_tensors_where_the_caller_s_default_is():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = Places().eval(), inputs_of()
    truth = model(inputs)[:, 1].detach()
    with device(), torch.device("cuda"):
        engine = engine_of(model)
        torch.testing.assert_close(ask(engine, inputs), truth, rtol=1e-4, atol=1e-5)
        prepared = engine.prepared(frozenset(), to_device(inputs))
    assert list(prepared.captured) == [(3, 12, 12)], prepared.notes

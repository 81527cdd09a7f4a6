"""Which backend runs: preference, reasons, forcing, and no fall-back in silence."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from xai_fast import ops
from xai_fast.ops import _dispatch, _library


@pytest.fixture
def op(monkeypatch):
    """An op of its own: cpp refuses negative numbers, triton always fails; the reference says who ran."""
    monkeypatch.delenv("XAI_FAST_BACKEND", raising=False)
    monkeypatch.setattr(_dispatch, "_ops", {})
    loads = []

    def load():
        loads.append("cpp")
        return lambda value: ("cpp", value)

    def negative(value):
        return "the value is negative" if value.item() < 0 else None

    def failing(value):
        raise ArithmeticError("the kernel failed")

    made = ops.Op("sample_op", lambda: lambda value: ("reference", value))
    made.offer("cpp", load, unless=(negative,))
    made.offer("triton", lambda: failing, unless=(lambda value: "never by itself" if value.item() < 9 else None,))
    made.loads = loads
    return made


def test_the_first_offer_without_reasons_runs_and_is_loaded_once(op):
    assert not op.loads
    assert op(torch.tensor(1.0))[0] == op.which(torch.tensor(1.0)) == "cpp"
    op(torch.tensor(2.0))
    assert op.loads == ["cpp"]


def test_the_reference_takes_what_others_refuse(op):
    value = torch.tensor(-1.0)
    assert op(value)[0] == op.which(value) == "reference"
    assert op.reasons(value) == {
        "cpp": ["the value is negative"],
        "triton": ["never by itself"],
        "reference": [],
    }


@pytest.mark.parametrize("by", ["variable", "using"])
def test_a_forced_backend_that_refuses_raises_with_arguments_and_reasons(op, by, monkeypatch):
    if by == "variable":
        monkeypatch.setenv("XAI_FAST_BACKEND", "cpp")
        with pytest.raises(ops.BackendError, match=r"'cpp'.*float32\(\) on cpp?u.*\n.*the value is negative"):
            op(torch.tensor(-1.0))
    else:
        with ops.using("cpp"), pytest.raises(ops.BackendError, match="the value is negative"):
            op(torch.tensor(-1.0))


def test_a_kernel_that_fails_raises(op):
    with pytest.raises(ArithmeticError), ops.using("triton"):
        op(torch.tensor(10.0))


def test_reserved_and_unknown_names(op, monkeypatch):
    with ops.using("cuda"), pytest.raises(ops.BackendError, match="sample_op has no cuda implementation"):
        op(torch.tensor(1.0))
    with (
        pytest.raises(ValueError, match="`backend` is 'fast', which is no backend; choose one of reference, cpp"),
        ops.using("fast"),
    ):
        pass
    monkeypatch.setenv("XAI_FAST_BACKEND", "fast")
    with pytest.raises(ValueError, match="`XAI_FAST_BACKEND` is 'fast'"):
        op(torch.tensor(1.0))


def test_using_precedes_the_variable_and_ends(op, monkeypatch):
    monkeypatch.setenv("XAI_FAST_BACKEND", "reference")
    value = torch.tensor(1.0)
    with ops.using("cpp"):
        assert op.which(value) == "cpp"
        with ops.using("reference"):
            assert op.which(value) == "reference"
        assert op.which(value) == "cpp"
    assert op.which(value) == "reference"


def test_the_first_choice_is_logged_once(op, caplog):
    with caplog.at_level(logging.INFO, logger="xai_fast"):
        for _ in range(3):
            op(torch.tensor(1.0))
        op(torch.tensor(-1.0))
    assert caplog.messages == ["sample_op runs on cpp for cpu", "sample_op runs on reference for cpu"]


def test_every_op_is_listed_and_every_backend_accounted_for():
    known = {"hide_windows", "window_mean", "cam_reduce", "region_gather", "add_noise", "path_points", "moments"}
    known |= {"winograd_convolution", "sign_bits", "pass_bits", "hide_segments", "surrogate_normal", "relu_change"}
    known |= {"grid_masks", "grid_reduce", "blend_maps", "bias_relu", "inverted_bottleneck", "gated_pointwise"}
    assert known <= set(ops.all_ops())
    assert set(ops.backends()) == set(_dispatch.BACKENDS)
    assert ops.backends()["reference"] is None
    if _library._load_cuda.__wrapped__().__class__ is str:
        assert "`XAI_FAST_CUDA=1 pip install .` builds them where nvcc is" in ops.backends()["cuda"]
    assert {name for name, op in ops.all_ops().items() if "cuda" in op.backends} == {
        "hide_windows",
        "hide_segments",
        "region_gather",
    }


def test_kernels_for_gpus_come_before_triton_s():
    for name in ("hide_windows", "hide_segments", "region_gather"):
        backends = ops.all_ops()[name].backends
        assert backends.index("cuda") < backends.index("triton")


def fresh_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_loads_no_kernel():
    fresh_python(
        "import sys, xai_fast.ops; "
        "assert not {'triton', 'xai_fast.ops._compiled', 'xai_fast.ops.hide_windows.triton'} & set(sys.modules)"
    )


def test_without_compiled_kernels_the_reference_runs_and_says_why():
    fresh_python(
        "import sys; sys.modules['xai_fast.ops._compiled'] = None\n"
        "import torch; from xai_fast import ops\n"
        "assert 'no compiled kernels' in ops.backends()['cpp']\n"
        "values, boxes = torch.ones(1, 1, 1), torch.tensor([[[0, 1], [0, 2]]])\n"
        "with ops.using(None): assert ops.window_mean(values, boxes, (1, 3)).tolist() == [[[[1, 1, 0]]]]\n"
    )


@pytest.mark.skipif(ops.backends()["cpp"] is not None, reason="no compiled kernels")
def test_tensors_reach_the_compiled_kernels_where_torch_offers_no_exchange():
    fresh_python(
        "import torch; from xai_fast import ops\n"
        "torch.Tensor.__dlpack_c_exchange_api__ = None\n"
        "base = torch.randn(2, 3, 9, 5, dtype=torch.bfloat16)[..., ::2].transpose(2, 3)\n"
        "sample, at, out = torch.arange(2), torch.zeros(2, 2, dtype=torch.int64), torch.empty_like(base)\n"
        "with ops.using('cpp'): assert ops.region_gather(base, None, None, sample, at, out).equal(base)\n"
    )


def test_the_name_of_an_op_is_its_function_whatever_was_imported_first():
    fresh_python(
        "import xai_fast.ops.hide_windows.reference, xai_fast.ops.hide_windows.cases\n"
        "import xai_fast.ops.window_mean.cases, xai_fast.ops.cam_reduce.reference, types\n"
        "import xai_fast.ops.region_gather.cases, xai_fast.ops.add_noise.cases\n"
        "import xai_fast.ops.path_points.reference, xai_fast.ops.moments.cases\n"
        "import xai_fast.ops.surrogate_normal.reference\n"
        "import xai_fast.ops.winograd_convolution.cases, xai_fast.ops.pass_bits.cases\n"
        "import xai_fast.ops.inverted_bottleneck.reference, xai_fast.ops.gated_pointwise.reference\n"
        "from xai_fast import ops\n"
        "for name in ops.all_ops(): assert isinstance(getattr(ops, name), types.FunctionType), name\n"
    )


@pytest.mark.skipif(ops.backends()["cpp"] is not None, reason="no compiled kernels")
def test_instructions_are_limited_by_the_variable_and_for_a_while(monkeypatch):
    assert (ops.register_panel() > 0) == (len(ops.instruction_sets()) > 1)
    with ops.limited_to("baseline"):
        assert ops.register_panel() == 0
    monkeypatch.setenv("XAI_FAST_INSTRUCTIONS", "baseline")
    assert ops.instruction_sets() == ("baseline",)
    with ops.limited_to("avx512"):
        _library._load.__wrapped__()  # as at the start of a process
        assert ops.register_panel() == 0
    monkeypatch.setenv("XAI_FAST_INSTRUCTIONS", "sse9")
    with pytest.raises(ValueError, match="`XAI_FAST_INSTRUCTIONS` is 'sse9', which is no set of instructions"):
        ops.instruction_sets()
    monkeypatch.delenv("XAI_FAST_INSTRUCTIONS")
    with ops.limited_to("baseline"):
        pass
    assert (ops.register_panel() > 0) == (len(ops.instruction_sets()) > 1)

"""inverted_bottleneck and gated_pointwise against the convolutions they stand for, and what they promise."""

from __future__ import annotations

import pytest
import torch
from ops_support import run
from torch.nn import functional as F

from xai_fast import ops
from xai_fast.ops.inverted_bottleneck import ACTIVATIONS

LAST = torch.channels_last
FUNCTIONS = {
    "none": lambda x: x,
    "relu": torch.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
}


@pytest.fixture(params=["avx2", "avx512", "avx512_bf16"])
def kernel(request):
    """(panel, dtype) of every kernel that this processor can run, also those that it would not choose by itself."""
    if request.param not in ops.instruction_sets():
        pytest.skip(f"no kernel for {request.param} here")
    dtype = torch.bfloat16 if request.param == "avx512_bf16" else torch.float32
    with ops.limited_to(request.param):
        yield ops.register_panel(dtype), dtype


class Block:
    """Three convolutions with biases, their packed weights, and the call of the op."""

    def __init__(self, channels, size=(9, 7), *, side=3, stride=1, rows=2, dtype=torch.float32, panel=32, parts="ep"):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape, scale=1.0):
            return (torch.randn(shape, generator=generator) * scale).to(dtype)

        inward, middle, outward = channels
        self.side, self.stride, self.padding = side, stride, side // 2
        self.expand = (draw(middle, inward, 1, 1, scale=inward**-0.5), draw(middle)) if "e" in parts else None
        self.depth = (draw(middle, 1, side, side, scale=1 / side), draw(middle))
        self.project = (draw(outward, middle, 1, 1, scale=middle**-0.5), draw(outward)) if "p" in parts else None
        self.weights = ops.bottleneck_weights(self.expand, self.depth, self.project, panel)
        self.x = draw(rows, inward, *size).contiguous(memory_format=LAST)
        shape = (rows, outward, *((extent - 1) // stride + 1 for extent in size))
        self.other, self.out = (draw(*shape).contiguous(memory_format=LAST) for _ in range(2))

    def call(self, activation="relu6", *, adds=False, means=None, rows=slice(None)):
        other = self.other[rows] if adds else None
        settings = {"stride": self.stride, "padding": self.padding, "activation": activation}
        given = {**self.weights._asdict(), "other": other, "out": self.out[rows], "means": means, **settings}
        return {"inputs": self.x[rows], **given}

    def truth(self, activation="relu6", *, adds=False, gate=None):
        def doubled(pair):
            return tuple(value.double() for value in pair)

        y, function = self.x.double(), FUNCTIONS[activation]
        if self.expand is not None:
            y = function(F.conv2d(y, *doubled(self.expand)))
        y = function(F.conv2d(y, *doubled(self.depth), self.stride, self.padding, groups=y.shape[1]))
        if gate is not None:
            y = y * gate.double()[:, :, None, None]
        if self.project is not None:
            y = F.conv2d(y, *doubled(self.project))
        return y + self.other.double() if adds else y


def assert_near(found, truth, times=1.0):
    """`times` the rounding of the dtype, of the largest."""
    error = (found.double() - truth).abs().max().item()
    unit = 2**-7 if found.dtype is torch.bfloat16 else 2e-6
    assert error <= times * unit * max(truth.abs().max().item(), 1.0), error


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)])
def test_it_is_the_three_convolutions(kernel, activation, side, stride):
    panel, dtype = kernel
    block = Block((12, 40, 20), (15, 16), side=side, stride=stride, dtype=dtype, panel=panel)
    for adds in (False, True):
        assert_near(
            run("cpp", "inverted_bottleneck", block.call(activation, adds=adds)), block.truth(activation, adds=adds), 2
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_reference_is_the_three_convolutions(activation):
    block = Block((5, 24, 7), dtype=torch.float64)
    torch.testing.assert_close(run("reference", "inverted_bottleneck", block.call(activation)), block.truth(activation))


@pytest.mark.parametrize("parts", ["e", "p", ""])
def test_its_outer_convolutions_may_be_missing(kernel, parts):
    panel, dtype = kernel
    channels = (2 * panel, 2 * panel, 2 * panel) if "p" not in parts else (2 * panel, 2 * panel, 12)
    block = Block(channels, dtype=dtype, panel=panel, parts=parts)
    means = torch.empty(2, channels[2]) if "p" not in parts else None
    assert_near(run("cpp", "inverted_bottleneck", block.call("silu", means=means)), block.truth("silu"), 2)
    if means is not None:
        assert_near(means, block.truth("silu").mean((2, 3)), 4 if dtype is torch.float32 else 1e4)


def test_a_gate_scales_channels_before_the_last_one(kernel):
    panel, dtype = kernel
    block = Block((12, 3 * panel // 2 + 2, 20), dtype=dtype, panel=panel)
    middle, gate = block.depth[0].shape[0], torch.rand(2, block.depth[0].shape[0], generator=torch.manual_seed(0))
    wide = torch.empty(2, middle, 9, 7, dtype=dtype, memory_format=LAST)
    weights = block.weights._replace(project=None, project_bias=None)
    given = {**block.call("hardswish"), **weights._asdict(), "out": wide}
    wide = run("cpp", "inverted_bottleneck", given)
    call = {"inputs": wide, "gate": gate, "project": block.weights.project, "project_bias": block.weights.project_bias}
    found = run("cpp", "gated_pointwise", {**call, "other": block.other, "out": block.out})
    assert_near(found, block.truth("hardswish", adds=True, gate=gate), 3)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("parts", ["ep", "e"])
def test_a_row_does_not_depend_on_its_neighbours(kernel, threads, parts):
    """However many there are, and however work is divided among threads."""
    panel, dtype = kernel
    middle = 3 * panel
    block = Block((16, middle, 20 if "p" in parts else middle), (6, 5), rows=30, dtype=dtype, panel=panel, parts=parts)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = run("cpp", "inverted_bottleneck", block.call("silu"))
        for rows in (slice(0, 1), slice(3, 10)):
            assert run("cpp", "inverted_bottleneck", block.call("silu", rows=rows)).equal(together[rows])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (5, 2)])
def test_large_maps_are_worked_through_in_strips(kernel, side, stride):
    """Sums of a wide map are kept for some of its rows at a time; which ones, changes no bit."""
    panel, dtype = kernel
    block = Block((8, 2 * panel, 8), (61, 1200), side=side, stride=stride, rows=1, dtype=dtype, panel=panel)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run("cpp", "inverted_bottleneck", block.call(adds=True)))
    finally:
        torch.set_num_threads(before)
    assert_near(found[0], block.truth(adds=True), 2)
    assert all(one.equal(found[0]) for one in found)


def test_sums_up_in_place(kernel):
    panel, dtype = kernel
    block = Block((16, 48, 24), dtype=dtype, panel=panel)
    expected = run("cpp", "inverted_bottleneck", block.call(adds=True))
    with ops.using("cpp"):
        assert ops.inverted_bottleneck(**{**block.call(adds=True), "out": block.other}) is block.other
    assert block.other.equal(expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_shows_where_it_would(kernel, activation, value):
    """Wherever the three convolutions give NaN or an infinity, one of them stands; everywhere else what is finite."""
    panel, dtype = kernel
    block = Block((16, 32, 8), (11, 10), dtype=dtype, panel=panel)
    block.x[0, 3, 2, 2] = value
    found = run("cpp", "inverted_bottleneck", block.call(activation))
    truth = block.truth(activation)
    assert found[truth.isfinite()].isfinite().all()
    if value != value or activation == "none":  # an activation may bound an infinity
        assert found[0, :, 1:4, 1:4].isfinite().logical_not().all()
    assert truth[0, :, 5:].isfinite().all()


def test_silu_is_exact_over_its_range(kernel):
    panel, dtype = kernel
    x = torch.linspace(-100, 100, 2 * panel * 900).view(1, -1, 30, 30).to(dtype).contiguous(memory_format=LAST)
    identity = torch.zeros(x.shape[1], 1, 3, 3, dtype=dtype)
    identity[:, :, 1, 1] = 1
    weights = ops.bottleneck_weights(None, (identity, None), None, panel)
    out = ops.inverted_bottleneck(x, *weights, None, torch.empty_like(x), None, 1, 1, "silu")
    truth = F.silu(x.double())
    error = (out.double() - truth).abs() / truth.abs().clamp_min(1e-3)
    assert error.max() <= (1e-6 if dtype is torch.float32 else 2**-8 + 1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda call: {"inputs": call["inputs"].contiguous()}, "not dense with channels last"),
        (lambda call: {"expand": torch.stack([call["expand"]] * 2, -1)[..., 0]}, "weights are not dense"),
    ],
)
def test_what_registers_do_not_fit_runs_on_the_reference(kernel, change, reason):
    panel, dtype = kernel
    block = Block((16, 48, 24), dtype=dtype, panel=panel)
    call = {**block.call(), **change(block.call())}
    order = [*block.weights._fields]
    arguments = [call["inputs"], *(call[name] for name in order), *(call[k] for k in ("other", "out", "means"))]
    settings = [call[name] for name in ("stride", "padding", "activation")]
    assert any(reason in why for why in ops.all_ops()["inverted_bottleneck"].reasons(*arguments, *settings)["cpp"])
    assert_near(ops.inverted_bottleneck(**call), block.truth(), 2)


def test_odd_channels_come_in_no_pairs():
    with pytest.raises(ValueError, match="3 input channels; in bfloat16 it takes an even number"):
        Block((3, 32, 8), dtype=torch.bfloat16)


def test_processors_without_vectors_have_no_kernel():
    if not ops.instruction_sets():
        pytest.skip("no compiled kernels")
    with ops.limited_to("baseline"):
        block = Block((16, 48, 24))
        assert_near(ops.inverted_bottleneck(**block.call()), block.truth())
        with pytest.raises(ops.BackendError, match="neither AVX-512 nor AVX2"), ops.using("cpp"):
            ops.inverted_bottleneck(**block.call())

"""Fused steps give what the steps give that they stand for, forward and by their input, on every implementation."""

from __future__ import annotations

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_fast as xf
from xai_fast.core.prepare import prepare
from xai_fast.graph.fused import (
    IMPLEMENTATIONS,
    Activation,
    FusedConvolution,
    FusedLinear,
    FusedResidual,
    Geometry,
    Strided,
    implementation_for,
)
from xai_fast.graph.fused.onednn import OneDnn, convolution, linear
from xai_fast.graph.fused.onednn.convolution import PackedConvolution
from xai_fast.graph.fused.onednn.gradients import Flipped, OneDnnConvolution, Phased, Pointwise, Transposed
from xai_fast.graph.fused.onednn.linear import PackedLinear
from xai_fast.graph.fused.onednn.probe import failed
from xai_fast.graph.fused.public import Convolution, Linear, PublicOperators
from xai_fast.graph.processor import assuming

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
packed_only = pytest.mark.skipif(failed() is not None, reason=str(failed()))
each = pytest.mark.parametrize(
    "implementation",
    [pytest.param(i, marks=packed_only if isinstance(i, OneDnn) else ()) for i in IMPLEMENTATIONS],
    ids=lambda implementation: implementation.name,
)

halved_only = pytest.mark.skipif(failed(torch.bfloat16) is not None, reason=str(failed(torch.bfloat16)))
DTYPES = {torch.float32: 1e-5, torch.bfloat16: 2**-6}  # how far results may be from float64, of the largest and of 1
each_dtype = pytest.mark.parametrize(
    ("implementation", "dtype"),
    [
        pytest.param(i, dtype, marks=(halved_only if dtype is torch.bfloat16 else packed_only) if i.hides_nan else ())
        for i in IMPLEMENTATIONS
        for dtype in DTYPES
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)

GEOMETRIES = [
    Geometry((1, 1), (1, 1), (1, 1), 1),
    Geometry((2, 1), (0, 2), (1, 1), 1),
    Geometry((1, 1), (2, 2), (2, 2), 1),
    Geometry((1, 2), (1, 0), (1, 1), 4),
    Geometry((1, 1), (1, 1), (1, 1), 8),
]
ACTIVATIONS = [
    Activation("none"),
    Activation("relu"),
    Activation("hardtanh", (0.0, 6.0)),
    Activation("silu"),
    Activation("hardswish"),
    Activation("leaky_relu", (0.2,)),
    Activation("gelu", (), "none"),
    Activation("gelu", (), "tanh"),
    Activation("sigmoid"),
    Activation("tanh"),
]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(*shape, seed=0):
    return draw(*shape, seed=seed).contiguous(memory_format=torch.channels_last)


# Which implementation runs


def test_the_implementation_is_chosen_by_device_and_dtype():
    on_cpu = implementation_for(CPU, torch.float32)
    assert on_cpu is None if failed() else isinstance(on_cpu, OneDnn)
    assert implementation_for(CPU, torch.float64) is None
    assert type(implementation_for(CUDA, torch.float32)) is type(implementation_for(CUDA, torch.float16))
    assert type(implementation_for(CUDA, torch.float32)) is PublicOperators


def test_the_implementation_can_be_named_and_none_be_allowed():
    with assuming(implementation="public"):
        assert type(implementation_for(CPU, torch.float32)) is PublicOperators
    with assuming(implementation="onednn"):
        assert implementation_for(CUDA, torch.float32) is None
    with assuming(fused=False):
        assert implementation_for(CUDA, torch.float32) is None


def test_halves_are_fused_where_a_model_was_reduced_to_them():
    """Minimal filtering rounds more than a model of bfloat16 does by itself."""
    found = implementation_for(CPU, torch.bfloat16, reduced=True)
    assert found is None if failed(torch.bfloat16) else isinstance(found, OneDnn)
    assert implementation_for(CPU, torch.bfloat16) is None
    assert implementation_for(CPU, torch.float32, reduced=True) is None


# Convolutions


@each_dtype
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@torch.no_grad()
def test_fused_convolutions_are_the_public_ones(geometry, implementation, dtype):
    x = images(3, 8, 9, 7).to(dtype)
    weight, bias = draw(16, 8 // geometry.groups, 3, 3, seed=1).to(dtype), draw(16, seed=2).to(dtype)
    settings = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    plain = F.conv2d(x.double(), weight.double(), bias.double(), *settings)
    sources = [implementation.convolution(weight, bias, geometry, short_sums=False)]
    if isinstance(implementation, OneDnn) and geometry.groups == 1 and dtype is torch.float32:
        sources.append(PackedConvolution(weight, bias, geometry, parts=2))  # only sums over all channels are cut
    for source in sources:
        for activation in ACTIVATIONS:
            fused = FusedConvolution(source, activation)
            for rows in (3, 1):
                assert_close(fused(x[:rows]), activation(plain[:rows].clone()))
            # What knows no autograd goes through what does.
            assert_close(fused(x.clone().requires_grad_()), activation(plain.clone()))
        other = images(*plain.shape, seed=3).to(dtype)
        for consumes in (False, True):
            given = other.clone(memory_format=torch.preserve_format)
            residual = FusedResidual(source, rectified=True, consumes=consumes)
            assert_close(residual(x, given), (plain + other).relu())
            assert consumes or torch.equal(given, other)
        inner = F.conv2d(x.double(), weight.double(), bias.double(), geometry.stride, 0, geometry.dilation,
                         geometry.groups)  # fmt: skip
        assert_close(FusedConvolution(source).unpadded()(x), inner)


@each_dtype
@pytest.mark.parametrize("rows", [0, 1, 3])
@torch.no_grad()
def test_pointwise_convolutions_of_maps_of_one_position(rows, implementation, dtype):
    """Squeeze-and-excitation gates have such; around a position with padding there are more."""
    x, weight, bias = images(rows, 24, 1, 1).to(dtype), draw(20, 24, 1, 1, seed=1).to(dtype), draw(20, seed=2).to(dtype)
    for padding in (0, 1):
        geometry = Geometry((1, 1), (padding, padding), (1, 1), 1)
        truth = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
        for given in (bias, None):
            source = implementation.convolution(weight, given, geometry, short_sums=False)
            plain = truth if given is not None else truth - bias.double()[:, None, None]
            for activation in ACTIVATIONS:
                found = FusedConvolution(source, activation)(x)
                assert_close(found, activation(plain.clone()))
                assert not implementation.regroups or found.is_contiguous(memory_format=torch.channels_last)
        assert_close(FusedConvolution(source).unpadded()(x), F.conv2d(x.double(), weight.double()))


@packed_only
def test_not_a_number_shows_behind_a_map_of_one_position():
    source = OneDnn().convolution(draw(4, 8, 1, 1), draw(4), Geometry((1, 1), (0, 0), (1, 1), 1), short_sums=False)
    x = images(2, 8, 1, 1)
    x[1, 3] = float("nan")
    with torch.no_grad():
        found = source.forward(x, Activation("relu"))
    assert found[1].isnan().all()
    assert found[0].isfinite().all()


def assert_close(found, truth, slack=1):
    """`slack`: by how many times the rounding of one result."""
    close = slack * DTYPES[found.dtype]
    largest = truth.abs().max().item() if found.dtype is torch.bfloat16 and truth.numel() else 1.0
    torch.testing.assert_close(found.double(), truth, rtol=close, atol=close * max(largest, 1.0))


@each
def test_residual_sums_go_through_autograd(implementation):
    source = implementation.convolution(draw(4, 4, 3, 3), draw(4), GEOMETRIES[0], short_sums=False)
    x, other = images(2, 4, 5, 5).requires_grad_(), images(2, 4, 5, 5, seed=1).requires_grad_()
    FusedResidual(source, rectified=True, consumes=True)(x, other).sum().backward()
    plain = [part.detach().requires_grad_() for part in (x, other)]
    (F.conv2d(plain[0], source.weight, source.bias, padding=1) + plain[1]).relu().sum().backward()
    for found, truth in zip((x, other), plain, strict=True):
        torch.testing.assert_close(found.grad, truth.grad)


CONVOLUTIONS = [
    # in, out, size, kernel, stride, padding, dilation, groups, form
    (8, 12, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1), 1, Flipped),
    (8, 12, (9, 7), (3, 5), (1, 1), (0, 2), (2, 1), 4, Flipped),
    (8, 8, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1), 8, Flipped),
    (8, 12, (9, 7), (1, 1), (1, 1), (1, 1), (1, 1), 1, Transposed),
    (8, 12, (10, 7), (1, 1), (2, 3), (0, 0), (1, 1), 1, Pointwise),
    (8, 12, (9, 8), (1, 1), (2, 2), (0, 0), (1, 1), 2, Pointwise),
    (3, 16, (32, 33), (7, 7), (2, 2), (3, 3), (1, 1), 1, Phased),
    (3, 16, (35, 30), (11, 11), (4, 4), (2, 2), (1, 1), 1, Phased),
    (2, 6, (17, 16), (2, 5), (3, 2), (0, 1), (1, 1), 1, Phased),
    (3, 8, (32, 32), (4, 4), (4, 4), (0, 0), (1, 1), 1, Phased),
    (1, 5, (13, 13), (1, 3), (4, 1), (0, 0), (1, 1), 1, Phased),
    (8, 12, (9, 10), (3, 3), (2, 2), (1, 1), (1, 1), 1, Transposed),
    (8, 12, (10, 9), (3, 2), (2, 1), (1, 0), (2, 1), 2, Transposed),
    (8, 8, (10, 9), (3, 3), (2, 2), (1, 1), (1, 1), 8, Transposed),
]


def gradient_of(source, gradient, shape, there=None):
    """The input gradient as a whole map."""
    found = source.input_gradient(gradient, shape, there)
    if isinstance(found, Strided):
        whole = gradient.new_zeros(len(gradient), *found.shape) if there is None else there
        height, width = (n * s for n, s in zip(found.tensor.shape[2:], found.stride, strict=True))
        whole[:, :, : height : found.stride[0], : width : found.stride[1]] += found.tensor
        return whole
    return found


@each_dtype
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_input_gradients_of_convolutions(case, rows, implementation, dtype):
    """Alone, added to one that is there already, and for an input of another size."""
    channels, out, size, kernel, stride, padding, dilation, groups, form = case
    weight = torch.randn(out, channels // groups, *kernel).to(dtype)
    source = implementation.convolution(weight, None, Geometry(stride, padding, dilation, groups), short_sums=False)
    if source is None:  # dilated depthwise ones stay as they are
        source = OneDnnConvolution(weight, None, Geometry(stride, padding, dilation, groups))
    assert not isinstance(source, OneDnnConvolution) or type(source.back) is form
    for extents in (size, (size[0] + 1, size[1])):
        x = torch.randn(rows, channels, *extents, dtype=torch.float64, requires_grad=True)
        y = F.conv2d(x, weight.double(), None, stride, padding, dilation, groups)
        gradient = torch.randn_like(y).to(dtype).double()
        (expected,) = torch.autograd.grad(y, x, gradient)
        gradient = gradient.to(dtype).contiguous(memory_format=torch.channels_last)
        slack = 10 if dtype is torch.float32 else 1
        with torch.no_grad():
            assert_close(gradient_of(source, gradient, x.shape[1:]), expected, slack)
            there = images(*x.shape).to(dtype)
            truth = expected + there.double()
            assert_close(gradient_of(source, gradient, x.shape[1:], there), truth, slack)


@packed_only
def test_long_sums_are_cut_into_stretches():
    weight, gradient = torch.randn(512, 8, 3, 3), images(2, 512, 6, 6)
    truth = F.conv_transpose2d(gradient.double(), weight.double(), padding=1)
    found = {}
    with torch.no_grad():
        for short in (False, True):
            source = OneDnn().convolution(weight, None, GEOMETRIES[0], short_sums=short)
            errors = source.input_gradient(gradient, (8, 6, 6), None) - truth
            found[short] = errors.square().mean().sqrt().item()
    assert found[True] < 0.7 * found[False]


@packed_only
@pytest.mark.parametrize("told", [True, False])
def test_packed_weights_of_many_shapes_take_little_room(monkeypatch, told):
    """Where torch tells how a packed weight lies in memory, shapes share what is alike; else few shapes are kept."""
    if not told:
        monkeypatch.setattr(convolution, "form_of", lambda packed: None)
        monkeypatch.setattr(linear, "form_of", lambda packed: None)
    source, layer = PackedConvolution(draw(4, 2, 3, 3), None, GEOMETRIES[0]), PackedLinear(draw(16, 24), None)
    with torch.no_grad(), assuming(packed=True):
        for side in range(4, 14):
            x, rows = images(2, 2, side, side), draw(side, 24)
            torch.testing.assert_close(source.forward(x), F.conv2d(x, source.weight, padding=1))
            torch.testing.assert_close(layer.forward(rows), F.linear(rows, layer.weight), rtol=1e-5, atol=1e-5)
    kept = {id(part) for parts in source._packed.values() for part in parts}
    assert len(kept) <= convolution._MOST_SHAPES
    assert len({id(part) for part in layer._choices.values()}) <= linear._MOST_SHAPES


# Linear layers


@each_dtype
@torch.no_grad()
def test_fused_linear_layers_are_the_public_ones(implementation, dtype):
    x, weight, bias = draw(2, 5, 24).to(dtype), draw(16, 24, seed=1).to(dtype), draw(16, seed=2).to(dtype)
    source, gradient = implementation.linear(weight, bias), draw(2, 5, 16).to(dtype)
    for activation in ACTIVATIONS:
        truth = activation(F.linear(x.double(), weight.double(), bias.double()))
        assert_close(FusedLinear(source, activation)(x), truth)
        assert FusedLinear(source, activation)(x[:, :0]).shape == (2, 0, 16)
        if isinstance(source, PackedLinear):
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 10)
            assert_close(source.fused(x, packed, activation), truth)
    assert_close(source.input_gradient(gradient), gradient.double() @ weight.double())


@packed_only
@torch.no_grad()
@pytest.mark.parametrize("pays", [True, False])
def test_linear_layers_of_one_size_are_timed_once_when_they_were_asked_often(monkeypatch, pays):
    timed = []

    def seconds(call):
        timed.append(call)
        return float((len(timed) == 1) == pays)  # the plain operator comes first

    monkeypatch.setattr(linear, "_pays", {})
    monkeypatch.setattr(linear, "_asked", {})
    monkeypatch.setattr(linear, "_fastest", seconds)
    layers = [PackedLinear(draw(16, 24, seed=seed), None) for seed in range(3)]
    for layer in layers[: linear._OFTEN - 1]:
        layer.forward(draw(10, 24))
    assert not timed
    for x in (draw(2, 5, 24), draw(10, 24), draw(2, 5, 24)):
        for layer in layers:
            torch.testing.assert_close(layer.forward(x), F.linear(x, layer.weight), rtol=1e-5, atol=1e-5)
    assert len(timed) == 2
    assert [packed is not None for layer in layers for packed in layer._choices.values()] == [pays] * 3


# Whole models by public operators


class Everything(nn.Module):
    """Convolutions of every form, a residual sum, normalisations that stay, attention, and activations between."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 8, 3, 2, 1)
        self.body, self.short = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, 2)
        self.norm, self.mix, self.head = nn.BatchNorm2d(8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = F.gelu(self.stem(x))
        x = (self.body(F.silu(self.down(x))) + self.short(x)).relu()
        x = self.norm(x.sigmoid()).relu().flatten(2).mT
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.mix(x).tanh().mean(1))


@pytest.mark.parametrize("method", ["IntegratedGradients", "Occlusion", "GradCAM", "GuidedBackprop"])
def test_maps_by_public_operators_are_the_models_own(method):
    inputs = networks.photos(2, 24)
    settings = {"Occlusion": {"window": 5, "stride": 4}, "GradCAM": {"layer": "body"}}.get(method, {})
    found = []
    for answers in ({"fused": False}, {"implementation": "public"}):
        with assuming(**answers), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            engine = xf.Engine(Everything().eval(), batch_size=3)
            found.append(getattr(xf, method)(engine, **settings).attribute(inputs, [1, 2]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_a_model_is_fused_by_public_operators():
    inputs = networks.photos(2, 24)
    with assuming(implementation="public"):
        prepared = prepare(Everything().eval(), frozenset(), fast=False, compiled=False, example=inputs[:1])
    (captured,) = prepared.captured.values()
    sources = [step.call.source for step in captured.steps if isinstance(step.call, FusedConvolution | FusedResidual)]
    assert len(sources) == 4
    assert {type(source) for source in sources} == {Convolution}
    linears = [step.call.source for step in captured.steps if isinstance(step.call, FusedLinear)]
    assert {type(source) for source in linears} == {Linear}
    assert all(getattr(step.call, "care", None) is None for step in captured.steps)

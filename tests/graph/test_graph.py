"""A captured model does what the model does: names, fusion, stages, exports, parts, and what is refused."""

from __future__ import annotations

import pytest
import torch
from networks import awakened, photos
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast.core.prepare import prepare
from xai_fast.graph import linear, onednn, probe, stages
from xai_fast.graph.capture import trace
from xai_fast.graph.captured import Captured, Replaced
from xai_fast.graph.kinds import Kind, kind_of, operation_of
from xai_fast.graph.linear import FusedLinear
from xai_fast.graph.onednn import Activation, FusedConvolution, FusedResidual, Geometry, PackedWeight

fused_only = pytest.mark.skipif(probe.refusal() is not None, reason=str(probe.refusal()))


def prepared_for(model, inputs, anchors=()):
    return prepare(model, frozenset(anchors), fast=False, compiled=False, example=inputs[:1])


def outputs(prepared, inputs):
    with torch.no_grad():
        return prepared(prepared.empty(len(inputs), inputs).copy_(inputs))


# Names


@pytest.mark.parametrize(
    ("same", "name", "kind"),
    [
        ((nn.ReLU(), functional.relu, torch.relu, torch.relu_, "relu", "relu_"), "relu", Kind.ELEMENTWISE),
        ((nn.Conv2d(1, 1, 1), functional.conv2d, torch.ops.aten.conv2d.default), "conv2d", Kind.WINDOWED),
        ((nn.MaxPool2d(2), functional.max_pool2d, torch.ops.aten.max_pool2d.default), "max_pool2d", Kind.POOLED),
        ((nn.BatchNorm2d(1), functional.batch_norm), "batch_norm", Kind.CHANNELWISE),
        ((torch.add, "add", "add_", "__iadd__"), "add", Kind.JOIN),
        ((nn.Linear(1, 1), functional.linear), "linear", Kind.GLOBAL),
        ((nn.Flatten(), torch.flatten, "flatten"), "flatten", Kind.SHAPE),
        (("size",), "size", Kind.NUMBER),
        ((nn.Module(), len.__class__, "no_such_method"), "", Kind.UNKNOWN),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_module_function_and_method_have_one_name(same, name, kind):
    assert [operation_of(target) for target in same] == [name] * len(same)
    assert kind_of(name) is kind


# Fused operators

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
    Activation("swish"),
    Activation("hardswish"),
    Activation("leaky_relu", (0.2,)),
    Activation("gelu", (), "none"),
    Activation("gelu", (), "tanh"),
    Activation("sigmoid"),
    Activation("tanh"),
]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@fused_only
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@torch.no_grad()
def test_fused_convolutions_are_the_public_ones(geometry, parts):
    if geometry.groups > 1 and parts > 1:
        pytest.skip("only sums over all channels are cut")
    x = draw(3, 8, 9, 7).contiguous(memory_format=torch.channels_last)
    weight, bias = draw(16, 8 // geometry.groups, 3, 3, seed=1), draw(16, seed=2)
    plain = functional.conv2d(
        x.double(),
        weight.double(),
        bias.double(),
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
    )
    for activation in ACTIVATIONS:
        fused = FusedConvolution(PackedWeight(weight, bias, geometry, parts), activation)
        for rows in (3, 1):
            torch.testing.assert_close(fused(x[:rows]).double(), activation(plain[:rows].clone()), rtol=1e-5, atol=1e-5)
        # What the private operators cannot take goes through the public ones.
        torch.testing.assert_close(fused(x.double().float().requires_grad_()).double(), activation(plain.clone()),
                                   rtol=1e-5, atol=1e-5)  # fmt: skip
    other = draw(*plain.shape, seed=3).contiguous(memory_format=torch.channels_last)
    for consumes in (False, True):
        given = other.clone(memory_format=torch.preserve_format)
        residual = FusedResidual(PackedWeight(weight, bias, geometry, parts), rectified=True, consumes=consumes)
        torch.testing.assert_close(residual(x, given).double(), (plain + other).relu(), rtol=1e-5, atol=1e-5)
        assert consumes or torch.equal(given, other)


@fused_only
@torch.no_grad()
def test_fused_linear_layers_are_the_public_ones():
    x, weight, bias = draw(2, 5, 24), draw(16, 24, seed=1), draw(16, seed=2)
    for activation in ACTIVATIONS:
        linear = FusedLinear(weight, bias, activation)
        truth = activation(functional.linear(x.double(), weight.double(), bias.double()))
        torch.testing.assert_close(linear(x).double(), truth, rtol=1e-5, atol=1e-5)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 10)
        torch.testing.assert_close(linear._fused(x, packed).double(), truth, rtol=1e-5, atol=1e-5)
        assert linear(x[:, :0]).shape == (2, 0, 16)


@fused_only
@torch.no_grad()
@pytest.mark.parametrize("pays", [True, False])
def test_linear_layers_of_one_size_are_timed_once(monkeypatch, pays):
    timed = []

    def seconds(call):
        timed.append(call)
        return float((len(timed) == 1) == pays)  # the plain operator comes first

    monkeypatch.setattr(linear, "_pays", {})
    monkeypatch.setattr(linear, "_fastest", seconds)
    layers = [FusedLinear(draw(16, 24, seed=seed), None) for seed in range(3)]
    for x in (draw(2, 5, 24), draw(10, 24), draw(2, 5, 24)):
        for layer in layers:
            torch.testing.assert_close(layer(x), functional.linear(x, layer.weight), rtol=1e-5, atol=1e-5)
    assert len(timed) == 2
    assert [(layer._choices[10] is not None) for layer in layers] == [pays] * 3


@pytest.mark.parametrize("told", [True, False])
def test_packed_weights_of_many_shapes_take_little_room(monkeypatch, told):
    """Where torch tells how a packed weight lies in memory, shapes share what is alike; else few shapes are kept."""
    if probe.refusal() is not None:
        pytest.skip("nothing is packed here")
    if not told:
        monkeypatch.setattr(onednn, "_form", lambda packed: None)
    source = PackedWeight(draw(4, 2, 3, 3), None, GEOMETRIES[0])
    with torch.no_grad():
        for side in range(4, 14):
            x = draw(2, 2, side, side).contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(FusedConvolution(source)(x), onednn.F.conv2d(x, source.weight, padding=1))
    kept = {id(part) for parts in source._packed.values() for part in parts}
    assert len(kept) <= onednn._MOST_SHAPES


# Whole models

NETWORKS = [
    "resnet18",
    "vgg11",
    "densenet121",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "swin_t",
    "googlenet",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prepared_forward_is_as_near_to_float64_as_the_model(name):
    model, inputs = awakened(name), photos(3, 64)
    truth = awakened(name).double()(inputs.double()).detach()
    plain = (model(inputs).double() - truth).square().mean().sqrt().item()
    prepared = prepared_for(model, inputs)
    assert prepared.captured, prepared.resists
    error = (outputs(prepared, inputs).double() - truth).square().mean().sqrt().item()
    assert error <= max(4 * plain, 1e-6 * truth.abs().max().item())


@fused_only
def test_stages_regroup_rows_and_change_nothing(monkeypatch):
    model, inputs = awakened("vgg11"), photos(7, 64)
    expected = outputs(prepared_for(model, inputs), inputs)
    monkeypatch.setattr(stages, "_LARGEST", 3 * 64 * 64 * 64 * 4)  # three rows of the first convolution
    prepared = prepared_for(model, inputs)
    (captured,) = prepared.captured.values()
    assert captured._stages[0].rows == 3
    assert captured._stages[-1].rows > 3
    torch.testing.assert_close(outputs(prepared, inputs), expected, rtol=1e-5, atol=1e-5)


def test_inputs_of_another_shape_are_recorded_anew():
    model = awakened("resnet18")
    prepared = prepared_for(model, photos(1, 64))
    engine = xf.Engine(model)
    for size in (64, 96, 80):
        inputs = photos(2, size)
        prepared = engine.prepared(frozenset(), inputs)
        torch.testing.assert_close(outputs(prepared, inputs), model(inputs).detach(), rtol=1e-4, atol=1e-3)
    assert set(prepared.captured) == {(3, size, size) for size in (64, 96, 80)}


class BranchingOnShape(nn.Module):
    """Python that only an example of the input lets a trace follow."""

    def __init__(self):
        super().__init__()
        self.net = awakened("resnet18", num_classes=5)

    def forward(self, x):
        return {"logits": self.net(x * 2 if x.shape[2] > 40 else x)}


def test_what_branches_on_sizes_is_traced_on_an_example():
    model, inputs = BranchingOnShape(), photos(2, 64)
    with pytest.raises(Exception, match="control flow"):
        trace(model, frozenset())
    prepared = prepared_for(model, inputs, ["net.layer3"])
    assert prepared.captured
    assert not prepared.resists
    torch.testing.assert_close(
        outputs(prepared, inputs)["logits"], model(inputs)["logits"].detach(), rtol=1e-4, atol=1e-3
    )
    cam = xf.AblationCAM(xf.Engine(model.double(), plan="tail"), layer="net.layer4")
    dense = xf.AblationCAM(xf.Engine(model, plan="dense", batch_size=64), layer="net.layer4")
    values, expected = cam.attribute(inputs[:1].double(), 1), dense.attribute(inputs[:1].double(), 1)
    assert (values - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_a_trace_returns_what_the_forward_returns():
    model, inputs = BranchingOnShape(), photos(2, 64)
    graph = trace(model.eval(), frozenset(), inputs)
    _, both = graph.record(inputs)
    assert set(both) == {"logits"}
    torch.testing.assert_close(both["logits"], model(inputs)["logits"].detach())


class BranchingOnData(nn.Module):
    """A forward that no graph can hold, around a part that one can."""

    def __init__(self):
        super().__init__()
        self.net = awakened("resnet18", num_classes=5)

    def forward(self, x):
        return self.net(x) if float(x.sum()) > -1e9 else self.net(-x)


@fused_only
def test_parts_of_what_resists_run_as_programs():
    model, inputs = BranchingOnData(), photos(2, 64)
    prepared = prepared_for(model, inputs)
    assert not prepared.captured
    assert "BranchingOnData" in prepared.resists
    assert prepared.folded == 20
    assert isinstance(vars(prepared.module.net)["forward"], Replaced)
    torch.testing.assert_close(outputs(prepared, inputs), model(inputs).detach(), rtol=1e-4, atol=1e-3)
    text = xf.Engine(model).explain_plan(xf.GradCAM(model, layer="net.layer4"), inputs)
    assert "plan: dense" in text
    assert "tail refused: not traceable" in text


# Methods on it


def test_gradcam_behind_a_mean_and_a_linear_layer_takes_no_gradient(monkeypatch):
    model, inputs = awakened("resnet18"), photos(2, 64)
    expected = xf.GradCAM(xf.Engine(model, plan="dense"), layer="layer4").attribute(inputs, 3)
    engine = xf.Engine(model)
    xf.GradCAM(engine, layer="layer4").attribute(inputs, 3)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a gradient was taken")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    for target in (None, 3, [1, 2], torch.tensor([[1, 3], [3, 2]])):
        values = xf.GradCAM(engine, layer="layer4").attribute(inputs, target)
        if isinstance(target, int):
            torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_a_captured_model_shares_no_memory_with_its_inputs():
    """A program may write into its batch, never into what the caller handed over."""
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    inputs = photos(2, 8)
    kept = inputs.clone()
    xf.Occlusion(model, window=4).attribute(inputs, 1)
    assert torch.equal(inputs, kept)


def test_forced_plans_say_why_they_do_not_apply():
    model, inputs = awakened("resnet18"), photos(1, 64)
    engine = xf.Engine(model, plan="tail")
    with pytest.raises(ValueError, match='`plan` "tail" does not apply here: the method looks at no layer'):
        xf.Occlusion(engine, window=32).attribute(inputs, 1)
    with pytest.raises(ValueError, match='`plan` "local" does not apply here: the method does not ask for scores'):
        xf.GradCAM(xf.Engine(model, plan="local"), layer="layer4").attribute(inputs, 1)
    assert "every row runs the whole model" in xf.Engine(model, plan="dense").explain_plan(
        xf.AblationCAM(model, layer="layer4"), inputs
    )


def test_an_anchor_keeps_its_own_value():
    """Neither folding nor fusion reaches across a layer that somebody reads."""
    model, inputs = awakened("resnet18"), photos(2, 64)
    seen = {}
    handle = model.layer3[1].conv2.register_forward_hook(lambda _m, _a, output: seen.update(truth=output.detach()))
    model(inputs)
    handle.remove()
    response = xf.InputXGradient(model, layer="layer3.1.conv2")
    assert response.attribute(inputs, 1).shape == seen["truth"].shape
    prepared = prepared_for(model, inputs, ["layer3.1.conv2"])
    (captured,) = prepared.captured.values()
    assert isinstance(captured, Captured)
    value = captured.returned_by("layer3.1.conv2").value
    program = captured.program(captured.graph.steps, (), [value])
    with torch.no_grad():
        made = program.run({0: prepared.empty(2, inputs).copy_(inputs)})[value]
    torch.testing.assert_close(made, seen["truth"], rtol=1e-4, atol=1e-4)

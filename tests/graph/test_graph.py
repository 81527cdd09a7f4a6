"""A captured model does what the model does: names, fusion, stages, exports, parts, and what is refused."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from networks import awakened, photos
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast.core.prepare import prepare
from xai_fast.graph import stages
from xai_fast.graph.capture import trace
from xai_fast.graph.captured import Captured, Replaced
from xai_fast.graph.fused.onednn.probe import failed
from xai_fast.graph.operation import Kind
from xai_fast.graph.operations import known_of, operation_of
from xai_fast.graph.steps import Value, filled, values_in


@dataclass(frozen=True)
class Pair:
    left: object
    right: object


class Named(NamedTuple):
    left: object
    right: object


fused_only = pytest.mark.skipif(failed() is not None, reason=str(failed()))


def prepared_for(model, inputs, anchors=()):
    return prepare(model, frozenset(anchors), fast=False, compiled=False, example=inputs[:1])


def outputs(prepared, inputs):
    with torch.no_grad():
        return prepared(prepared.empty(len(inputs), inputs).copy_(inputs))


# What steps read


@pytest.mark.parametrize(
    "build",
    [
        lambda a, b: ((a, 1), [b, None, "c"]),
        lambda a, b: {"x": [a], "y": {"z": (b,)}},
        lambda a, b: OrderedDict(x=a, y=(b, 2)),
        lambda a, b: Named(a, [b]),
        lambda a, b: [slice(a, b), slice(None, b, 2), slice(a, None)],
        lambda a, b: (Pair(a, [b, Pair(3, b)]), a),
    ],
)
def test_values_are_found_and_filled_in_wherever_they_are(build):
    given = build(Value(4), Value(7))
    assert {value.number for value in values_in(given)} == {4, 7}
    found = filled(given, {4: "four", 7: "seven"})
    assert found == build("four", "seven")
    assert type(found) is type(given)
    assert given == build(Value(4), Value(7))


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
    assert known_of(name).kind is kind


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
    cam = xf.AblationCAM(xf.Engine(model.double(), plan="tail"), layer="net.layer2")  # 128 channels
    dense = xf.AblationCAM(xf.Engine(model, plan="dense", batch_size=64), layer="net.layer2")
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

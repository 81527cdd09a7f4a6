"""Wrong usage is refused with the argument in backticks, before the model has run a single row."""

from __future__ import annotations

import pytest
import torch
from subjects import Small, signals
from table import FIRST, OF_EACH_PASS

import xai_fast as xf
from xai_fast import targets

first = pytest.mark.parametrize("case", OF_EACH_PASS, ids=lambda case: case.method)
# Methods that explain whatever score is asked for, and not that of classes alone.
ANY_SCORE = [case for case in OF_EACH_PASS if not case.needs_truth and not case.needs_classes]
scored = pytest.mark.parametrize("case", ANY_SCORE, ids=lambda case: case.method)
GOOD = signals(2)


def broken(position, value):
    inputs = signals(2)
    inputs[position] = value
    return inputs


INPUTS = {
    "a list": ([GOOD, GOOD], TypeError, "several input tensors"),
    "a tuple": ((GOOD, GOOD), TypeError, "several input tensors"),
    "an array": (GOOD.numpy(), TypeError, "ndarray"),
    "None": (None, TypeError, "NoneType"),
    "integers": (GOOD.long(), TypeError, "int64"),
    "bytes": (GOOD.to(torch.uint8), TypeError, "uint8"),
    "complex": (GOOD.to(torch.complex64), TypeError, "complex64"),
    "a vector": (GOOD[0, 0, 0], ValueError, r"\(11,\)"),
    "a matrix": (GOOD[0, 0], ValueError, r"\(13, 11\)"),
    "six axes": (GOOD[None, None], ValueError, r"\(1, 1, 2, 3, 13, 11\)"),
    "no samples": (GOOD[:0], ValueError, r"\(0, 3, 13, 11\)"),
    "no pixels": (GOOD[..., :0], ValueError, r"\(2, 3, 13, 0\)"),
    "NaN": (broken((1, 2, 3, 4), torch.nan), ValueError, "sample 1"),
    "Inf": (broken((1, 0, 0, 0), torch.inf), ValueError, "sample 1"),
    "both infinities": (
        torch.stack([GOOD[0], GOOD[0] + torch.tensor([torch.inf, 0, -torch.inf])[:, None, None]]),
        ValueError,
        "sample 1",
    ),
}
TARGETS = {
    "a float": (1.0, TypeError),
    "a truth value": (True, TypeError),
    "a string": ("cat", TypeError),
    "floats": ([0.0, 1.0], TypeError),
    "a float tensor": (torch.tensor([0.0, 1.0]), TypeError),
    "a bool tensor": (torch.tensor([True, False]), TypeError),
    "an object": (object(), TypeError),
    "too many": ([0, 1, 2], ValueError),
    "too few": (torch.tensor([1]), ValueError),
    "none at all": ([], ValueError),
    "no columns": (torch.empty(2, 0, dtype=torch.long), ValueError),
    "three axes": (torch.zeros(2, 1, 1, dtype=torch.long), ValueError),
    "negative": (-1, ValueError),
    "one negative": ([0, -1], ValueError),
}


@pytest.mark.parametrize("name", INPUTS)
@first
def test_wrong_inputs(case, name):
    model = Small()
    inputs, error, came = INPUTS[name]
    method = case.on(model)
    for call in (method.attribute, method, method.engine.scores):
        with pytest.raises(error, match=f"`inputs`.*{came}"):
            call(inputs, 1)
    with pytest.raises(error, match="`inputs`"):
        method.attribute(inputs, 1, sample_ids=torch.arange(2))
    assert model.record.rows == 0


@pytest.mark.parametrize("name", TARGETS)
@first
def test_wrong_targets(case, name):
    model = Small()
    target, error = TARGETS[name]
    with pytest.raises(error, match="`target`"):
        case.on(model).attribute(GOOD, target)
    assert model.record.rows == 0


@pytest.mark.parametrize("target", [5, [0, 99], torch.tensor([[0, 1], [1, 5]])], ids=str)
@first
def test_a_class_that_does_not_exist(case, target):
    """Nothing runs once the number of classes is known; before that, no variant runs."""
    if case.needs_truth and isinstance(target, torch.Tensor):
        pytest.skip("one class is true")
    model = Small()
    with pytest.raises(ValueError, match=r"`target` (5|99).*which has 5; give 0 to 4"):
        case.on(xf.Engine(model, batch_size=1)).attribute(GOOD, target)
    model.record.chunks.clear()
    with pytest.raises(ValueError, match=r"`target` (5|99)"):
        case.on(model).attribute(GOOD, target)
    assert model.record.rows == 0
    fresh = Small()
    with pytest.raises(ValueError, match=r"`target` (5|99)"):
        case.on(xf.Engine(fresh, classes="abcde")).attribute(GOOD, target)
    assert fresh.record.rows == 0


@pytest.mark.parametrize(
    "named",
    [targets.probability(5), targets.margin(7), targets.cross_entropy([0, 6]), targets.log_probability([0, 5])],
    ids=repr,
)
@scored
def test_a_class_that_does_not_exist_in_a_named_target(case, named):
    model = Small()
    method = case.on(xf.Engine(model, classes="abcde"))
    with pytest.raises(ValueError, match=r"`target` [567] is not a class"):
        method.attribute(GOOD, named)
    with pytest.raises((TypeError, ValueError), match="`classes`"):
        method.attribute(GOOD, targets.probability([1, 2, 3]))
    assert model.record.rows == 0


@scored
def test_callables_that_do_not_return_one_number_per_row(case):
    method = case.on(Small())
    wrong = (lambda s: s, lambda s: s.sum(), lambda s: s.argmax(1), lambda s: 1.0, lambda s: s[:1, 0])
    for function in wrong:
        with pytest.raises(TypeError, match=r"`target` must return one floating number per row, shape \(2,\)"):
            method.attribute(GOOD, function)


@pytest.mark.parametrize("method", ["Saliency", "InputXGradient", "GradCAM"])
def test_a_target_without_a_gradient(method):
    case = next(case for case in FIRST if case.method == method)
    with pytest.raises(ValueError, match="`target` does not depend differentiably"):
        case.on(Small()).attribute(GOOD, lambda s: s[:, 0].detach())


@first
def test_wrong_resolution_and_sample_ids(case):
    model = Small()
    with pytest.raises(ValueError, match="`resolution` came as 'full'"):
        case.on(model).attribute(GOOD, 1, resolution="full")
    for ids in ([0, 1], torch.arange(3), torch.arange(2.0), torch.zeros(2, 1, dtype=torch.long)):
        with pytest.raises(ValueError, match="`sample_ids`"):
            case.on(model).attribute(GOOD, 1, sample_ids=ids)
    assert model.record.rows == 0


@first
def test_wrong_shape_for_cost(case):
    method = case.on(Small())
    for shape in ((), (3,), (3, 0, 4), (1, 2, 3, 4, 5, 6), (3.0, 8, 8)):
        with pytest.raises(ValueError, match="`shape`"):
            method.cost(shape)


@first
def test_a_model_that_is_none(case):
    for model in (None, "resnet50", 3):
        with pytest.raises(TypeError, match="`model` came as"):
            case.on(model)


OCCLUSION = {
    "window of zero": ({"window": 0}, ValueError, "`window` came as 0"),
    "negative window": ({"window": (3, -1)}, ValueError, "`window`"),
    "a float": ({"window": 2.5}, TypeError, "`window` came as 2.5"),
    "a truth value": ({"window": True}, TypeError, "`window`"),
    "a string": ({"window": "15"}, TypeError, "`window`"),
    "nothing": ({"window": ()}, TypeError, "`window`"),
    "stride of zero": ({"window": 3, "stride": 0}, ValueError, "`stride` came as 0"),
    "a float stride": ({"window": 3, "stride": 1.5}, TypeError, "`stride`"),
    "an unknown baseline": ({"window": 3, "baseline": "grey"}, ValueError, "`baseline` came as 'grey'"),
    "no baseline": ({"window": 3, "baseline": None}, TypeError, "`baseline`"),
    "an object": ({"window": 3, "baseline": object()}, TypeError, "`baseline`"),
    "words": ({"window": 3, "baseline": ["black", "white", "black"]}, TypeError, "`baseline`"),
}
OCCLUSION_CALL = {
    "larger than the input": ({"window": 14}, "`window` 14 is larger than the input"),
    "larger along one axis": ({"window": (13, 12)}, "`window`"),
    "more channels than there are": ({"window": (4, 3, 3)}, "`window`"),
    "too many axes": ({"window": (1, 1, 3, 3)}, "`window`"),
    "a stride of too many axes": ({"window": 3, "stride": (1, 1, 1, 1)}, "`stride`"),
    "two channels of baseline": ({"window": 3, "baseline": (0.0, 1.0)}, "`baseline`"),
    "a baseline of another size": ({"window": 3, "baseline": torch.zeros(3, 5, 5)}, "`baseline`"),
    "a baseline of more samples": ({"window": 3, "baseline": torch.zeros(4, 3, 13, 11)}, "`baseline`"),
    "a baseline that is NaN": ({"window": 3, "baseline": float("nan")}, "`baseline`"),
    "a colour without preprocessing": ({"window": 3, "baseline": "black"}, "`baseline`.*`preprocess`"),
}


@pytest.mark.parametrize("name", OCCLUSION)
def test_occlusion_refuses_settings(name):
    settings, error, message = OCCLUSION[name]
    with pytest.raises(error, match=message):
        xf.Occlusion(Small(), **settings)


@pytest.mark.parametrize("name", OCCLUSION_CALL)
def test_occlusion_refuses_what_does_not_fit_the_inputs(name):
    model = Small()
    settings, message = OCCLUSION_CALL[name]
    with pytest.raises(ValueError, match=message):
        xf.Occlusion(model, **settings).attribute(GOOD, 1)
    assert model.record.rows == 0


LAYERS = {
    "misspelt": ("boody", ValueError, "`layer` 'boody' is not a layer of this model; close are.*'body'"),
    "another model's": (torch.nn.Linear(2, 2), ValueError, "`layer` Linear is not a part"),
    "a number": (3, TypeError, "`layer` came as int"),
    "the model itself by its name": ("", ValueError, "`layer`"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("method", ["GradCAM", "Saliency", "InputXGradient"])
def test_wrong_layers(method, name):
    layer, error, message = LAYERS[name]
    model = Small()
    with pytest.raises(error, match=message):
        getattr(xf, method)(model, layer=layer)
    with pytest.raises(TypeError, match=r"`layer` needs a torch\.nn\.Module"):
        getattr(xf, method)(lambda x: x, layer="body")
    assert model.record.rows == 0


def test_cam_settings():
    model = Small()
    with pytest.raises(ValueError, match="`fuse` came as 'sum'"):
        xf.GradCAM(model, layer="body", fuse="sum")
    with pytest.raises(ValueError, match="`layer` came as an empty list"):
        xf.GradCAM(model, layer=[])
    with pytest.raises(ValueError, match="`layer` came as a list"):
        xf.Saliency(model, layer=["body", "stem"])
    with pytest.raises(ValueError, match="`channels` came as 'min'"):
        xf.Saliency(model, channels="min")
    with pytest.raises(ValueError, match=r"`layer` gives \(2, 5\), which is no grid"):
        xf.GradCAM(model, layer="head").attribute(GOOD, 1)
    spare = Small()
    spare.unused = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match=r"`layer`.*does not run"):
        xf.GradCAM(spare, layer="unused").attribute(GOOD, 1)
    with pytest.raises(TypeError, match=r"`layer` needs a torch\.nn\.Module"):
        xf.GradCAM(lambda x: x.mean((2, 3))).attribute(GOOD, 1)


GRADIENTS = {
    "another rule": ("IntegratedGradients", {"quadrature": "simpson"}, ValueError, "`quadrature` came as 'simpson'"),
    "no steps": ("IntegratedGradients", {"n_steps": 0}, ValueError, "`n_steps` came as 0"),
    "one step of two": ("IntegratedGradients", {"n_steps": 1, "quadrature": "trapezoid"}, ValueError, "`n_steps`"),
    "half a step": ("IntegratedGradients", {"n_steps": 2.5}, TypeError, "`n_steps` came as 2.5"),
    "no tolerance": ("IntegratedGradients", {"tolerance": 0.0}, ValueError, "`tolerance` came as 0"),
    "a tolerance at a layer": ("IntegratedGradients", {"tolerance": 0.1, "layer": "stem"}, ValueError, "`tolerance`"),
    "an unknown baseline": ("IntegratedGradients", {"baseline": "grey"}, ValueError, "`baseline` came as 'grey'"),
    "no samples": ("SmoothGrad", {"n_samples": 0}, ValueError, "`n_samples` came as 0"),
    "negative noise": ("SmoothGrad", {"noise": -0.1}, ValueError, "`noise` came as -0.1"),
    "noise in words": ("SmoothGrad", {"noise": "much"}, TypeError, "`noise` came as 'much'"),
    "relative to what": ("SmoothGrad", {"relative": "image"}, ValueError, "`relative` came as 'image'"),
    "another aggregate": ("SmoothGrad", {"aggregate": "median"}, ValueError, "`aggregate` came as 'median'"),
    "a snapshot too far": ("SmoothGrad", {"snapshots": (60,)}, ValueError, "`snapshots` holds 60"),
    "a seed below 0": ("SmoothGrad", {"seed": -1}, ValueError, "`seed` came as -1"),
    "no draws": ("GradientShap", {"n_samples": 0}, ValueError, "`n_samples` came as 0"),
    "negative noise on paths": ("GradientShap", {"noise": -1.0}, ValueError, "`noise`"),
    "a kind": ("ErrorAttribution", {"kind": "both"}, ValueError, "`kind` came as 'both'"),
    "against whom": ("ErrorAttribution", {"against": "truth"}, ValueError, "`against` came as 'truth'"),
    "several layers": (
        "ErrorAttribution",
        {"kind": "activation", "layer": ["stem"]},
        ValueError,
        "`layer` came as a list",
    ),
    "no layer": ("GuidedGradCAM", {"layer": None}, (TypeError, ValueError), "`layer`"),
    "a missing layer": ("DeepLift", {"layer": "boody"}, ValueError, "`layer` 'boody' is not a layer"),
}
GRADIENTS_CALL = {
    "references of another size": ("GradientShap", {"baselines": torch.zeros(2, 3, 5, 5)}, "`baselines`"),
    "several references": ("DeepLift", {"baselines": torch.zeros(2, 3, 13, 11)}, "`baselines`"),
    "a range that is not known": ("SmoothGrad", {"relative": "range"}, '`relative` "range".*`preprocess`'),
    "a baseline of another size": ("IntegratedGradients", {"baseline": torch.zeros(3, 5, 5)}, "`baseline`"),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_methods_refuse_settings(name):
    method, settings, error, message = GRADIENTS[name]
    model = Small()
    with pytest.raises(error, match=message):
        getattr(xf, method)(model, **settings)
    assert model.record.rows == 0


@pytest.mark.parametrize("name", GRADIENTS_CALL)
def test_gradient_methods_refuse_what_does_not_fit_the_inputs(name):
    method, settings, message = GRADIENTS_CALL[name]
    model = Small()
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(xf, method)(model, **settings).attribute(GOOD[:1], 1)
    assert model.record.rows == 0


def test_only_gradient_methods_are_smoothed():
    model = Small()
    with pytest.raises(TypeError, match="`model` came as Occlusion; give a gradient method"):
        xf.SmoothGrad(xf.Occlusion(model, window=3))
    with pytest.raises(ValueError, match="`model` is a method with a `tolerance`"):
        xf.SmoothGrad(xf.IntegratedGradients(model, tolerance=0.1))


def test_a_method_that_must_know_the_truth_is_refused_before_anything_runs():
    model = Small()
    engine = xf.Engine(model, preprocess=lambda photo: signals(1)[0])
    with pytest.raises(ValueError, match="`target` is missing, and ErrorAttribution must be told the true class"):
        xf.explain(signals(1), engine, methods=["Saliency", "ErrorAttribution"])
    assert model.record.rows == 0


ENGINE = {
    "mode": ("quick", ValueError),
    "plan": ("sparse", ValueError),
    "batch_size": (0, ValueError),
    "memory_limit": (-1, ValueError),
    "compile": ("always", ValueError),
}


@pytest.mark.parametrize("name", ENGINE)
def test_wrong_engine_settings(name):
    value, error = ENGINE[name]
    with pytest.raises(error, match=f"`{name}` came as {value!r}"):
        xf.Engine(Small(), **{name: value})
    with pytest.raises(ValueError, match=f"`{name}`"):
        xf.Engine(Small(), **{name: 1.5})


def test_one_image_without_a_batch_axis():
    """Torch's 2-d layers would take (C, H, W) for one image, and the engine for C signals."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(-3)
    )
    with pytest.raises(ValueError, match=r"`inputs`.*inputs\[None\]"):
        xf.Saliency(net).attribute(torch.randn(3, 16, 16))

"""Captum accelerated gives what captum gives: the same numbers, draws, layout, dtype, exceptions; all calls counted."""

from __future__ import annotations

import copy
import threading
import warnings
from functools import lru_cache

import numpy as np
import pytest
import torch
from ruled import Modules
from subjects import Small, global_state, model_state, signals
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat import captum as compat

attr = pytest.importorskip("captum.attr", reason="captum is not installed")
from captum import metrics  # noqa: E402 - after the check that it is there

PIXELS = torch.arange(13 * 11).view(1, 1, 13, 11) // 24
CHANNELS = torch.arange(3).view(1, 3, 1, 1).expand(1, 3, 13, 11)
PER_INPUT = torch.cat([PIXELS, PIXELS.flip(2), PIXELS * 3 - 4])
TARGETS = [1, 4, 0]


def method(name, *arguments, on=Small, dtype=torch.float64, **keywords):
    """(the class, how it is called): `call(model)` makes the explainer, `ask(explainer, inputs)` asks it."""
    return name, on, dtype, arguments, keywords


WINDOWS = {"sliding_window_shapes": (3, 5, 4), "strides": (3, 3, 2)}
REFERENCES = signals(4, seed=5)
CALLS = {
    "Saliency": method("Saliency", target=TARGETS),
    "Saliency signed": method("Saliency", target=torch.tensor(TARGETS), abs=False),
    "InputXGradient": method("InputXGradient", target=2),
    "IntegratedGradients": method("IntegratedGradients", on=Modules, dtype=torch.float32, target=TARGETS, n_steps=6),
    "IntegratedGradients delta": method(
        "IntegratedGradients",
        on=Modules,
        dtype=torch.float32,
        target=TARGETS,
        n_steps=5,
        method="riemann_right",
        baselines=0.2,
        internal_batch_size=4,
        return_convergence_delta=True,
    ),
    "IntegratedGradients trapezoid": method("IntegratedGradients", target=1, n_steps=4, method="riemann_trapezoid"),
    "GradientShap": method("GradientShap", baselines=REFERENCES, stdevs=0.1, target=TARGETS),
    "NoiseTunnel": method("NoiseTunnel:Saliency", target=TARGETS, nt_samples=3, nt_samples_batch_size=2),
    "NoiseTunnel vargrad": method(
        "NoiseTunnel:IntegratedGradients", target=1, nt_type="vargrad", nt_samples=2, n_steps=3, stdevs=0.2
    ),
    "NoiseTunnel Occlusion": method("NoiseTunnel:Occlusion", target=1, nt_samples=2, **WINDOWS),
    "FeatureAblation": method("FeatureAblation", target=TARGETS, feature_mask=PIXELS),
    "FeatureAblation per input": method("FeatureAblation", target=TARGETS, feature_mask=PER_INPUT, baselines=0.3),
    "FeatureAblation channels": method("FeatureAblation", target=TARGETS, feature_mask=CHANNELS),
    "FeatureAblation elements": method("FeatureAblation", target=TARGETS, perturbations_per_eval=40),
    "Occlusion": method("Occlusion", target=TARGETS, **WINDOWS),
    "Occlusion channel": method("Occlusion", target=1, sliding_window_shapes=(1, 13, 4), strides=(1, 20, 2)),
    "Occlusion baselines": method(
        "Occlusion", target=1, sliding_window_shapes=((2, 5, 5),), strides=2, baselines=(REFERENCES[:3].double(),)
    ),
    "ShapleyValueSampling": method("ShapleyValueSampling", target=TARGETS, feature_mask=PIXELS, n_samples=2),
    "ShapleyValues": method("ShapleyValues", target=TARGETS, feature_mask=PIXELS // 2),
    "Lime": method("Lime", target=TARGETS, feature_mask=PIXELS, n_samples=12),
    "KernelShap": method("KernelShap", target=TARGETS, feature_mask=PIXELS, n_samples=12, return_input_shape=False),
    "GuidedBackprop": method("GuidedBackprop", on=Modules, target=TARGETS),
    "Deconvolution": method("Deconvolution", on=Modules, target=TARGETS),
    "GuidedGradCam": method("GuidedGradCam@body", on=Modules, target=TARGETS),
    "LayerGradCam": method("LayerGradCam@body", target=TARGETS),
    "LayerGradCam relu": method("LayerGradCam@stem_norm", target=TARGETS, relu_attributions=True),
    "LayerActivation": method("LayerActivation@body"),
    "LayerIntegratedGradients": method(
        "LayerIntegratedGradients@body", on=Modules, dtype=torch.float32, target=TARGETS, n_steps=5, baselines=0.1
    ),
    "DeepLift": method("DeepLift", on=Modules, target=TARGETS, baselines=REFERENCES[:1].double()),
    "DeepLiftShap": method("DeepLiftShap", on=Modules, target=TARGETS, baselines=REFERENCES.double()),
}
# Captum's draws are the only thing that these do in double precision: their own results are float32.
SINGLE = ("Occlusion", "NoiseTunnel Occlusion", "Shapley", "Lime", "KernelShap", "FeatureAblation", "GradientShap")


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


@lru_cache
def subject(kind, dtype):
    return kind().to(dtype)


def explainer(name, model):
    name, _, layer = name.partition("@")
    outer, _, inner = name.partition(":")
    if inner:
        return getattr(attr, outer)(getattr(attr, inner)(model))
    return getattr(attr, outer)(*([model, model.get_submodule(layer)] if layer else [model]))


def asked(case, model=None, inputs=None):
    """The result, the numbers that both generators give next, and what was counted."""
    name, kind, dtype, arguments, keywords = case
    model = subject(kind, dtype) if model is None else model
    inputs = signals(dtype=dtype) if inputs is None else inputs
    if name == "GradientShap":
        keywords = {**keywords, "baselines": keywords["baselines"].to(inputs)}
    torch.manual_seed(7)
    np.random.seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = explainer(name, model).attribute(inputs, *arguments, **keywords)
    return result, torch.rand(1).item(), np.random.rand()


def same(one, other, tolerance):
    assert type(one) is type(other)
    if isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b, tolerance)
        return
    assert one.shape == other.shape
    assert (one.dtype, one.requires_grad, one.device) == (other.dtype, other.requires_grad, other.device)
    assert one.stride() == other.stride()
    worst = (one - other).abs().max() / one.abs().max()
    assert worst <= tolerance, float(worst)


@pytest.mark.parametrize("name", CALLS)
def test_captums_numbers(name):
    case = CALLS[name]
    double = case[2] is torch.float64 and not name.startswith(SINGLE)
    plain = asked(case)
    assert plain[0][0].abs().max() > 1e-7, "the network sleeps"
    with xf.accelerate("captum"):
        ours = asked(case)
    same(plain[0], ours[0], 1e-9 if double else 2e-5)
    assert plain[1:] == ours[1:], "as many draws as captum's"
    report = accelerate.report()
    assert (report.accelerated, report.passed_on) == (1, 0), str(report)


@pytest.mark.parametrize("name", ["Saliency", "Occlusion", "LayerGradCam", "KernelShap", "NoiseTunnel"])
def test_the_model_and_everything_else_stay_as_they_are(name):
    case = CALLS[name]
    model, inputs = subject(case[1], case[2]), signals(dtype=case[2])
    kept = inputs.clone()
    asked(case, model, inputs)
    before = model_state(model), global_state()
    with xf.accelerate("captum"):
        asked(case, model, inputs)
    assert model_state(model) == before[0]
    assert global_state() == before[1]
    assert torch.equal(inputs, kept)
    assert not inputs.requires_grad


def test_tuples_come_back_as_tuples():
    model, inputs = subject(Small, torch.float32), signals()
    with xf.accelerate("captum"):
        for result in (
            attr.Saliency(model).attribute((inputs,), target=1),
            attr.Occlusion(model).attribute((inputs,), ((3, 5, 5),), strides=((3, 5, 5),), target=1),
            attr.FeatureAblation(model).attribute((inputs,), target=1, feature_mask=(PIXELS,)),
        ):
            assert isinstance(result, tuple)
            assert result[0].shape == inputs.shape
    assert accelerate.report().passed_on == 0


class Moody(nn.Module):
    """Reads its mode in a function of its own."""

    def forward(self, x):
        return x.flatten(1).sum(1) * (2 if self.training else 1)


class Own(attr.Occlusion):
    def _occlusion_mask(self, *args, **kwargs):
        return super()._occlusion_mask(*args, **kwargs)


NOT_COVERED = {
    "a further argument that has not a row": lambda x: attr.Saliency(
        lambda rows, more: rows.flatten(1).sum(1) * more.sum()
    ).attribute(x, additional_forward_args=torch.ones(2)),
    "the model is in training mode": lambda x: attr.Saliency(Small().train()).attribute(x, target=1),
    "the model is in training mode, in": lambda x: attr.Occlusion(Moody()).attribute(x, (3, 5, 5)),
    "FeaturePermutation is captum's own": lambda x: attr.FeaturePermutation(Small()).attribute(x, target=1),
    "inputs with 1 axes": lambda x: attr.Saliency(lambda rows: rows * 2).attribute(x[:, 0, 0, 0]),
    "`multiply_by_inputs` is False": lambda x: attr.DeepLift(Modules(), multiply_by_inputs=False).attribute(
        x, target=1
    ),
    "an operation that captum's rule does not see": lambda x: attr.DeepLift(Small()).attribute(x, target=1),
    "a ReLU runs that is no `nn.ReLU` module": lambda x: attr.GuidedBackprop(Small()).attribute(x, target=1),
    "`attribute_to_layer_input` is True": lambda x: attr.LayerGradCam(model := Small(), model.body).attribute(
        x, target=1, attribute_to_layer_input=True
    ),
    "a layer that does not return": lambda x: attr.LayerActivation(model := Small(), model.head).attribute(x),
    "the model draws random numbers": lambda x: attr.Occlusion(
        lambda rows: functional.dropout(rows.flatten(1), 0.5).sum(1)
    ).attribute(x, (3, 5, 5)),
    "no target, and several outputs": lambda x: attr.InputXGradient(
        lambda rows: rows.flatten(1).sum(1).reshape(-1, 1, 1)
    ).attribute(x),
    "a subclass has its own `_occlusion_mask`": lambda x: Own(Small()).attribute(x, (3, 5, 5), target=1),
    "LayerConductance is captum's own": lambda x: attr.NoiseTunnel(
        attr.LayerConductance(model := Small(), model.body)
    ).attribute(x, target=1, nt_samples=2, n_steps=2),
}


@pytest.mark.parametrize("reason", NOT_COVERED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_covered_runs_captums_code(reason):
    def run():
        torch.manual_seed(3)
        result = NOT_COVERED[reason](signals())
        return (result if isinstance(result, tuple) else (result,)), torch.rand(1)

    (plain, drawn), (ours, drawn_too) = run(), _accelerated(run)
    assert all(torch.equal(one, other) for one, other in zip(plain, ours, strict=True))
    assert torch.equal(drawn, drawn_too)
    (row,) = accelerate.report().rows
    assert row.reason.startswith(reason), row.reason


def _accelerated(run):
    with xf.accelerate("captum"):
        return run()


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: attr.Saliency(Small()).attribute(x, target=9),
        lambda x: attr.Saliency(Small()).attribute(x, target=[1, 2]),
        lambda x: attr.Saliency(Small()).attribute(x),
        lambda x: attr.Occlusion(Small()).attribute(x, (3, 20, 5), target=1),
        lambda x: attr.Occlusion(Small()).attribute(x, (3, 5, 5), strides=(3, 6, 5), target=1),
        lambda x: attr.IntegratedGradients(Small()).attribute(x, x[:2], target=1),
        lambda x: attr.IntegratedGradients(Small()).attribute(x, target=1, method="simpson"),
        lambda x: attr.NoiseTunnel(attr.Saliency(Small())).attribute(x, target=1, stdevs=1),
        lambda x: attr.GuidedBackprop(Modules()).attribute(x),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_captums_exceptions(ask):
    with pytest.raises(Exception) as plain:  # noqa: PT011 - whichever captum raises
        ask(signals())
    with xf.accelerate("captum"), pytest.raises(type(plain.value)) as ours:
        ask(signals())
    assert str(ours.value) == str(plain.value)


def test_a_result_can_be_differentiated_as_captums():
    model, inputs = Small().double(), signals(dtype=torch.float64).requires_grad_()

    def slope():
        result = attr.LayerGradCam(model, model.body).attribute(inputs, target=TARGETS)
        return torch.autograd.grad(result.square().sum(), (inputs, model.stem.weight))

    plain, ours = slope(), _accelerated(slope)
    assert accelerate.report().accelerated == 1
    assert plain[0].abs().max() > 0
    for one, other in zip(plain, ours, strict=True):
        torch.testing.assert_close(one, other)


def test_plain_callables():
    model, inputs = Small().double(), signals(dtype=torch.float64)
    forwards = (lambda x: model(x)[:, 1], model.forward)

    def run():
        with_lambda = attr.Occlusion(forwards[0]).attribute(inputs, **WINDOWS)
        return with_lambda, attr.Saliency(forwards[1]).attribute(inputs, target=1)

    plain, ours = run(), _accelerated(run)
    same(plain, ours, 1e-5)
    assert accelerate.report().passed_on == 0


def test_outputs_of_several_axes():
    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.small = Small()

        def forward(self, x):
            return self.small.body(self.small.stem(x).relu())

    model = Map().eval().double()
    inputs = signals(dtype=torch.float64)

    def run():
        return attr.Saliency(model).attribute(inputs, target=(2, 4, 5))

    same(run(), _accelerated(run), 1e-9)
    assert accelerate.report().passed_on == 0


def test_a_layer_swapped_after_the_first_call():
    """What was found out about a model is found out anew when its modules change."""
    model, inputs = Modules().double(), signals(dtype=torch.float64)

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attr.GuidedBackprop(model).attribute(inputs, target=1)

    _accelerated(run)
    model.tanh = torch.nn.Hardtanh(0, 9)
    same(run(), _accelerated(run), 1e-9)
    model.tanh = _Loose()
    same(run(), _accelerated(run), 0)
    assert accelerate.report().passed_on == 1


class _Loose(nn.Module):
    def forward(self, x):
        return functional.relu(x)


def test_few_rows_on_a_new_model_are_captums(rows_that_pay):
    rows_that_pay(4)
    model, inputs = Small(), signals()
    with xf.accelerate("captum"):
        for _ in range(2):
            attr.Saliency(model).attribute(inputs, target=1)
    report = accelerate.report()
    assert (report.accelerated, report.passed_on) == (1, 1)
    assert "few rows on a model that was hardly asked about before" in str(report)


def test_subclasses_without_acceleration():
    model, inputs = subject(Small, torch.float32), signals()
    own = compat.Occlusion(model)
    assert isinstance(own, attr.Occlusion)
    plain = attr.Occlusion(model).attribute(inputs, (3, 5, 5), strides=(3, 5, 5), target=1)
    same(plain, own.attribute(inputs, (3, 5, 5), strides=(3, 5, 5), target=1), 1e-5)
    tunnel = attr.NoiseTunnel(compat.Saliency(model)).attribute(inputs, target=1, nt_samples=2)
    assert tunnel.shape == inputs.shape
    assert accelerate.report().accelerated == 1  # captum's NoiseTunnel calls the library's own function


def test_metrics_around_accelerated_methods():
    model, inputs = Small().double(), signals(dtype=torch.float64)

    def run():
        torch.manual_seed(1)
        np.random.seed(1)
        saliency = attr.Saliency(model)
        sensitive = metrics.sensitivity_max(saliency.attribute, inputs, target=1, n_perturb_samples=3)
        unfaithful = metrics.infidelity(
            model,
            lambda x: (noise := 0.1 * torch.randn_like(x), x - noise),
            inputs,
            saliency.attribute(inputs, 1),
            target=1,
        )
        return sensitive, unfaithful

    same(run(), _accelerated(run), 1e-8)
    assert accelerate.report().accelerated >= 2


def test_two_threads_with_an_explainer_each_on_one_model():
    model, inputs = Small().double(), signals(dtype=torch.float64)
    found = {}

    def explain(name):
        case = CALLS[name]
        found[name] = [explainer(case[0], model).attribute(inputs, *case[3], **case[4]) for _ in range(3)]

    with xf.accelerate("captum"):
        threads = [threading.Thread(target=explain, args=(name,)) for name in ("Occlusion", "LayerGradCam", "Saliency")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, results in found.items():
        for result in results:
            same(asked(CALLS[name], copy.deepcopy(model), inputs)[0], result, 1e-6)
    assert accelerate.report().accelerated == 9


@pytest.mark.parametrize("channels", [1, 2])
def test_other_numbers_of_channels(channels):
    model, inputs = Small(channels=channels), signals(shape=(channels, 12, 10))

    def run():
        return attr.Occlusion(model).attribute(inputs, (channels, 4, 4), strides=(channels, 3, 3), target=TARGETS)

    same(run(), _accelerated(run), 2e-5)
    assert accelerate.report().passed_on == 0


def test_a_transformer():
    model, inputs = _transformer(), signals()

    def run():
        occluded = attr.Occlusion(model).attribute(inputs, (3, 5, 5), strides=(3, 5, 5), target=1)
        return occluded, attr.InputXGradient(model).attribute(inputs, target=1)

    same(run(), _accelerated(run), 2e-5)
    assert accelerate.report().passed_on == 0


def _transformer():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 4, stride=4)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            return self.head(self.block(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Tokens().eval()

"""grad-cam accelerated gives what grad-cam gives: numbers, shapes, draws, errors; what ran where is counted."""

from __future__ import annotations

import threading
import warnings
from functools import lru_cache

import numpy as np
import pytest
import torch
from ruled import Modules, WritesOver
from subjects import Small, model_state, signals
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat import pytorch_grad_cam as compat
from xai_fast.compat import worth

library = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
from pytorch_grad_cam import base_cam  # noqa: E402 - after the check that it is there
from pytorch_grad_cam.utils import model_targets  # noqa: E402 - as above

CLASSES = [model_targets.ClassifierOutputTarget(category) for category in (1, 4, 0)]
SMOOTH = [model_targets.ClassifierOutputSoftmaxTarget(category) for category in (1, 4, 0)]


class Tokens(nn.Module):
    """Patches as tokens behind a class token, mixed over positions."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.patches, self.first = nn.Conv2d(3, 12, 4, stride=3), nn.Parameter(torch.randn(1, 1, 12))
            self.mix, self.block, self.head = nn.Linear(13, 13), nn.Linear(12, 12), nn.Linear(12, 5)
        self.eval()

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        tokens = self.block(tokens + self.mix(tokens.transpose(1, 2)).transpose(1, 2))
        return self.head(functional.gelu(tokens).mean(1))


def grid(tokens):
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 3))


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


@lru_cache
def subject(kind=Small):
    return kind()


def asked(name, *, layers=("body",), on=Small, targets=CLASSES, inputs=None, source=library, settings=(), **call):
    """The map, and the number that numpy's generator gives next."""
    model, inputs = subject(on), signals() if inputs is None else inputs
    cam = getattr(source, name)(model, [model.get_submodule(layer) for layer in layers], **dict(settings))
    np.random.seed(3)
    return cam(inputs, targets, **call), np.random.rand()


def accelerated(run):
    with xf.accelerate("pytorch_grad_cam"):
        return run()


def same(plain, ours, tolerance=1e-5, least=0.01):
    assert type(ours) is type(plain) is np.ndarray
    assert (ours.shape, ours.dtype) == (plain.shape, plain.dtype)
    assert plain.std() > least, "the map says nothing"
    np.testing.assert_allclose(ours, plain, rtol=0, atol=tolerance)


OWN = ["GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "RandomCAM", "KPCA_CAM"]
OWN += ["EigenCAM", "EigenGradCAM", "SegEigenCAM", "FEM", "AblationCAM", "ScoreCAM", "FullGrad"]
CALLS = {name: (name, {}) for name in OWN} | {
    "no targets": ("GradCAMPlusPlus", {"targets": None}),
    "any callable": ("XGradCAM", {"targets": SMOOTH}),
    "several layers": ("GradCAM", {"layers": ("stem_norm", "body")}),
    "another order of layers": ("LayerCAM", {"layers": ("body", "stem_norm")}),
    "augmented": ("HiResCAM", {"aug_smooth": True}),
    "principal component": ("LayerCAM", {"eigen_smooth": True}),
    "principal component of weighted channels": ("AblationCAM", {"eigen_smooth": True}),
    "tokens": ("GradCAM", {"on": Tokens, "layers": ("block",), "settings": {"reshape_transform": grid}.items()}),
    "channels behind a rectifier": ("AblationCAM", {"layers": ("pool",), "targets": SMOOTH}),
    "batches of channels": ("AblationCAM", {"settings": {"batch_size": 4}.items()}),
    "channels of tokens": (
        "AblationCAM",
        {
            "on": Tokens,
            "layers": ("block",),
            "settings": {"reshape_transform": grid, "ablation_layer": library.AblationLayerVit()}.items(),
        },
    ),
    "masks of callables": ("ScoreCAM", {"targets": SMOOTH}),
    "biases without targets": ("FullGrad", {"targets": None, "aug_smooth": True}),
    "finer": ("FinerCAM", {"targets": None}),
    "finer with parameters": ("FinerCAM", {"targets": None, "target_idx": 2, "alpha": 0.6}),
    "refined": ("RefineCAM", {"layers": ("stem_norm", "body")}),
}


@pytest.mark.parametrize("name", CALLS)
def test_grad_cams_numbers(name, capsys):
    cam, how = CALLS[name]
    plain = asked(cam, **how)
    ours = accelerated(lambda: asked(cam, **how))
    same(plain[0], ours[0])
    assert plain[1] == ours[1], "as many draws as grad-cam's"
    report = accelerate.report()
    assert report.passed_on == 0, str(report)
    assert report.accelerated > 0


def test_the_growing_ablation_is_grad_cams_and_said():
    signed = {"on": Tokens, "layers": ("patches",)}
    maps = [asked("AblationCAM", settings={"batch_size": size}.items(), **signed)[0] for size in (1, 6)]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3, "grad-cam's map depends on how many channels a batch holds"
    accelerated(lambda: asked("AblationCAM", layers=("pool",)))
    assert not any(row.note for row in accelerate.report().rows)
    same(maps[1], accelerated(lambda: asked("AblationCAM", settings={"batch_size": 6}.items(), **signed)[0]))
    assert "10^7 below the layer's least value" in str(accelerate.report())


class Smooth(nn.Module):
    """What follows `body` has second derivatives everywhere."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.body, self.mix, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(24, 5)
        self.eval()

    def forward(self, x):
        x = functional.silu(self.mix(functional.silu(self.body(x))))
        return 3 * self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1)).tanh()


@pytest.mark.parametrize(
    "how",
    [{}, {"targets": None}, {"targets": SMOOTH}, {"eigen_smooth": True}],
    ids=["classes", "no targets", "any callable", "principal component"],
)
@pytest.mark.parametrize("kind", [Smooth, Small])
def test_second_derivatives(kind, how, capsys):
    model = kind()
    cam = library.ShapleyCAM(model, [model.body])
    how = {"targets": CLASSES, **how}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = cam(signals(), **how)
        other = kind()
        first_order = library.GradCAM(other, [other.body])(signals(), **how)
    assert (np.abs(plain - first_order).max() > 1e-3) == (kind is Smooth or how["targets"] is SMOOTH)
    before = model_state(model)
    maps = accelerated(lambda: [cam(signals(), **how) for _ in range(2)])
    for one in maps:
        same(plain, one)
    assert model_state(model) == before
    rows = {bool(row.reason): row.reason for row in accelerate.report().rows if row.method == "ShapleyCAM"}
    assert rows == {False: "", True: rows[True]}
    assert rows[True].startswith("the first call on a layer")
    truth = kind().double()
    exact = library.ShapleyCAM(truth, [truth.body])(signals().double(), **how)
    assert np.abs(maps[1] - exact).max() < 4 * np.abs(plain - exact).max() + 1e-6


def test_second_derivatives_that_do_not_exist():
    """Where nothing with parameters follows, grad-cam cannot differentiate the gradient, every time."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    errors = []
    for run in (lambda ask: ask(), accelerated, accelerated):
        with pytest.raises(RuntimeError) as error:
            run(lambda: library.ShapleyCAM(model, [model[0]])(signals(), CLASSES))
        errors.append(str(error.value))
    assert len(set(errors)) == 1


def test_factorizations_are_grad_cams_and_listed():
    model = subject()

    def run():
        return library.DeepFeatureFactorization(model, model.body)(signals(), 3)

    plain, ours = run(), accelerated(run)
    assert all(np.array_equal(one, other) for one, other in zip(plain, ours, strict=True))
    (row,) = accelerate.report().rows
    assert (row.method, row.reason.partition(",")[0]) == (
        "DeepFeatureFactorization",
        "its factors may enlarge rounding",
    )


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "EigenCAM", "FinerCAM", "AblationCAM", "ScoreCAM", "FullGrad"])
@pytest.mark.parametrize("layer", ["body", "norm", "second"])
def test_layers_that_are_written_over(name, layer, capsys):
    """grad-cam keeps no copy of what a layer returned, so it sees what became of it."""
    how = {"on": WritesOver, "layers": (layer,), "targets": None if name == "FinerCAM" else SMOOTH}
    same(asked(name, **how)[0], accelerated(lambda: asked(name, **how))[0])
    over = layer != "norm" and name != "FullGrad"
    found = [row.method for row in accelerate.report().rows if "written over later" in row.reason]
    assert found == ([name] if over else []), str(accelerate.report())


def test_guided_backpropagation():
    model, inputs = Modules(), signals(1)

    def run():
        return library.GuidedBackpropReLUModel(model)(inputs.clone(), 2)

    ours, relu = accelerated(run), model.relu
    assert model.relu is relu, "grad-cam puts modules of its own in place of ReLUs"
    same(run(), ours, 1e-8, least=1e-4)
    assert accelerate.report().accelerated == 1


@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM", "ScoreCAM", "FullGrad"])
def test_the_model_stays_as_it_is(name):
    model, inputs = Small(), signals()
    cam = getattr(library, name)(model, [model.body])
    kept, before = inputs.clone(), model_state(model)
    accelerated(lambda: cam(inputs, CLASSES))
    assert model_state(model) == before, "hooks in their old order, no gradients at parameters"
    assert torch.equal(inputs, kept)
    assert cam.outputs.shape == (3, 5)


def test_objects_live_on_either_side():
    model, inputs = subject(), signals()
    before = library.GradCAM(model, [model.body])
    first = before(inputs, CLASSES)
    with xf.accelerate("pytorch_grad_cam"):
        within = library.GradCAM(model, [model.body])
        second, third = before(inputs, CLASSES), within(inputs, CLASSES)
        with library.GradCAM(model, [model.body]) as released:
            released(inputs, CLASSES)
    for found in (second, third, within(inputs, CLASSES), before(inputs, CLASSES)):
        same(first, found)
    assert accelerate.report().accelerated == 3


class Own(base_cam.BaseCAM):
    """A user's formula."""

    def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
        return np.sqrt(np.abs(grads).max(axis=(2, 3)))


def test_subclasses_keep_their_formula():
    def run():
        return Own(subject(), [subject().body])(signals(), CLASSES)

    same(run(), accelerated(run))
    assert accelerate.report().accelerated == 1


@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM", "FullGrad", "FinerCAM"])
def test_without_accelerate(name, capsys):
    own = getattr(compat, name)
    assert issubclass(own, getattr(library, name))
    same(asked(name)[0], asked(name, source=compat)[0])
    assert accelerate.report().accelerated > 0
    assert "__xai_fast__" not in vars(base_cam.BaseCAM.forward)


class AtTheInput(base_cam.BaseCAM):
    """A user's formula of gradients at the input."""

    def __init__(self, model, layers):
        super().__init__(model, layers, compute_input_gradient=True)

    def forward(self, input_tensor, targets, eigen_smooth=False):
        super().forward(input_tensor.clone(), targets, eigen_smooth)
        return self.found

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        self.found = input_tensor.grad.abs().sum(1).numpy()
        return [self.found[:, None]]


class OwnCurvature(library.ShapleyCAM):
    """A user's formula of second derivatives."""

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        (found,) = torch.autograd.grad(grads, activations, grads, retain_graph=True, allow_unused=True)
        return (grads if found is None else grads + found).detach().mean((2, 3)).numpy()


def frozen():
    model = Small().requires_grad_(False)
    model.stem.requires_grad_(True)
    return model


def _cam(name, model, layer="body", **settings):
    return getattr(library, name)(model, [model.get_submodule(layer)], **settings)


NOT_COVERED = {
    "gradients of gradients": lambda x: AtTheInput(Small(), [])(x, CLASSES),
    "several layers, or `reshape_transform`": lambda x: _cam("ShapleyCAM", Small(), reshape_transform=lambda a: a)(
        x, CLASSES
    ),
    "a subclass has its own `get_cam_weights`": lambda x: OwnCurvature(subject(), [subject().body])(x, CLASSES),
    "targets that are not one per input": lambda x: _cam("GradCAM", Small())(x, CLASSES[:1]),
    "gradients are off, or parameters are frozen": lambda x: _cam("GradCAM", frozen())(x, CLASSES),
    "`eigen_smooth`, or a subclass": lambda x: _cam("FullGrad", Small())(
        torch.nn.functional.interpolate(x, (24, 24)), CLASSES, eigen_smooth=True
    ),
    "`ratio_channels_to_ablate` is not 1": lambda x: _cam("AblationCAM", Small(), ratio_channels_to_ablate=0.5)(
        x, CLASSES
    ),
    "the model is in training mode": lambda x: _trained(x),
}


def _trained(x):
    cam = _cam("GradCAM", Small())
    cam.model.train()
    return cam(x, CLASSES)


@pytest.mark.parametrize("reason", NOT_COVERED)
def test_what_is_not_covered_runs_grad_cams_code(reason, capsys):
    plain = NOT_COVERED[reason](signals())
    ours = accelerated(lambda: NOT_COVERED[reason](signals()))
    np.testing.assert_allclose(ours, plain, atol=1e-6)
    assert any(row.reason.startswith(reason) for row in accelerate.report().rows), str(accelerate.report())


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: _cam("GradCAM", Small())(x, [model_targets.ClassifierOutputTarget(9)] * 3),
        lambda x: _cam("GradCAM", Small())(x, [model_targets.RawScoresOutputTarget()] * 3),
        lambda x: _cam("GradCAM", Small())(x[:, :2], CLASSES),
        lambda x: _cam("GradCAM", Small(), "head")(x, CLASSES),
        lambda x: _cam("GradCAM", Small().requires_grad_(False))(x, CLASSES),
    ],
)
def test_exceptions_stay_grad_cams(ask):
    with pytest.raises(Exception) as plain:  # noqa: PT011 - the same one, whichever it is
        ask(signals())
    with pytest.raises(type(plain.value)) as ours:
        accelerated(lambda: ask(signals()))
    assert str(ours.value) == str(plain.value)
    assert ours.value.__context__ is None or type(ours.value.__context__) is type(plain.value.__context__)


def test_threads_agree():
    model, inputs = subject(), signals()
    plain, found = asked("GradCAM")[0], []
    with xf.accelerate("pytorch_grad_cam"):
        cams = [library.GradCAM(model, [model.body]) for _ in range(3)]
        threads = [threading.Thread(target=lambda cam=cam: found.append(cam(inputs, CLASSES))) for cam in cams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 3
    for one in found:
        same(plain, one)


def test_a_model_hardly_asked_about_runs_grad_cams_code_until_the_engine_is_loaded(monkeypatch, rows_that_pay):
    """Whose plain copy is the faster one from the first row on: grad-cam runs backward through all weights."""
    rows_that_pay(100)
    monkeypatch.setattr(worth, "_ENGINE", "not loaded")
    model = Small()

    def run():
        return library.GradCAM(model, [model.body])(signals()[:1], CLASSES[:1])

    plain = run()
    with xf.accelerate("pytorch_grad_cam"):
        for _ in range(3):
            same(plain, run())
        report = accelerate.report()
        assert (report.accelerated, report.passed_on) == (1, 2)
        monkeypatch.setattr(worth, "_ENGINE", "xai_fast.engine")
        other = Small()
        same(plain, library.GradCAM(other, [other.body])(signals()[:1], CLASSES[:1]))
    report = accelerate.report()
    assert (report.accelerated, report.passed_on) == (2, 2)

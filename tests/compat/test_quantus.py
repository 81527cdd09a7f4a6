"""Our methods in Quantus' metrics: arrays as `quantus.explain` has them, scores as of maps made by hand."""

from __future__ import annotations

import copy
import importlib

import numpy as np
import pytest
import torch
from subjects import Small, model_state, signals

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat.quantus import explain

INPUTS, CLASSES = signals().numpy(), np.array([1, 4, 0])


def slope(model, inputs, targets):
    """The gradient of each input's score, one row at a time in double precision."""
    plain, found = copy.deepcopy(model).double(), []
    for row, target in zip(torch.as_tensor(inputs).double(), targets, strict=True):
        row = row[None].clone().requires_grad_()
        found.append(torch.autograd.grad(plain(row)[0, int(target)], row)[0])
    return torch.cat(found).numpy()


def test_arrays_come_back():
    model = Small()
    before, kept = model_state(model), INPUTS.copy()
    signed = {"method": "Saliency", "absolute": False}
    truth = slope(model, INPUTS, CLASSES)
    found = explain(model, INPUTS, CLASSES, **signed)
    assert (type(found), found.dtype, found.shape) == (np.ndarray, np.float32, (3, 1, 13, 11))
    np.testing.assert_allclose(found, truth.sum(1, keepdims=True), atol=1e-6)
    assert explain(model, INPUTS, CLASSES, keepdims=False, **signed).shape == (3, 13, 11)
    np.testing.assert_allclose(explain(model, INPUTS, CLASSES, reduce_axes=(), **signed), truth, atol=1e-6)
    assert model_state(model) == before
    assert np.array_equal(INPUTS, kept)


def test_arrays_of_any_layout(recwarn):
    turned = INPUTS[:, :, ::-1]
    turned.flags.writeable = False
    found = explain(Small(), turned, CLASSES, method="Saliency", absolute=False)
    np.testing.assert_allclose(found, slope(Small(), turned.copy(), CLASSES).sum(1, keepdims=True), atol=1e-6)
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_inputs_of_another_type_than_the_model(dtype):
    inputs = (10 * INPUTS).astype(dtype)
    found = explain(Small(), inputs, list(CLASSES), method="InputXGradient")
    truth = (slope(Small(), inputs, CLASSES) * inputs).sum(1, keepdims=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth, atol=1e-5 * np.abs(truth).max())


def test_settings_and_functions():
    model = Small()
    windows = explain(model, INPUTS, CLASSES, method="occlusion", window=3, stride=2, device="cpu")
    ours = xf.Occlusion(model, window=3, stride=2).attribute(torch.from_numpy(INPUTS), torch.from_numpy(CLASSES))
    assert np.array_equal(windows, ours.numpy())

    def noisy(engine):
        return xf.SmoothGrad(xf.IntegratedGradients(engine, n_steps=4), n_samples=3)

    together = explain(model, INPUTS, CLASSES, method=noisy)
    alone = [explain(model, INPUTS[[at]], CLASSES[[at]], method=noisy) for at in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    assert together.std() > 1e-3


REFUSED = {
    r"`method` 'GradCam2' is not known; close are": {"method": "GradCam2"},
    r"`channel_first` is no setting of GradCAM; it has": {"method": "GradCAM", "channel_first": True},
    r"`method` came as GradCAM; give a name": {"method": xf.GradCAM(Small())},
    r"`window` has no meaning beside a function": {"method": xf.Occlusion, "window": 3},
    r"`method` returned .*; give a function that returns a method": {"method": lambda _engine: xf.GradCAM(Small())},
    r"`reduce_axes` came as \(0,\); give different axes out of \(1, 2, 3\)": {"reduce_axes": (0,)},
    r"`reduce_axes` came as 1; give different axes": {"reduce_axes": 1},
    r"`targets` came as torch.float64 of shape \(3,\); give one class per input": {"targets": CLASSES / 2},
    r"`targets` came as torch.int64 of shape \(2,\); give one class per input": {"targets": CLASSES[:2]},
    r"`device` is meta, and the model is on cpu": {"device": "meta"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_arguments(message):
    with pytest.raises((TypeError, ValueError), match=message):
        explain(Small(), INPUTS, **{"targets": CLASSES, "method": "GradCAM", **REFUSED[message]})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"method": "Gradient"}, {"method": "Saliency", "absolute": False}),
        ({"method": "InputXGradient", "reduce_axes": (1, 2)}, {"method": "InputXGradient", "reduce_axes": (1, 2)}),
        ({"method": "Saliency", "keepdims": False}, {"method": "Saliency", "keepdims": False}),
    ],
    ids=["gradient", "products", "magnitudes"],
)
def test_quantus_own_explanations(theirs, ours):
    pytest.importorskip("captum", reason="captum, which Quantus asks, is not installed")
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    plain = quantus.explain(Small(), INPUTS, CLASSES, **theirs)
    found = explain(Small(), INPUTS, CLASSES, **ours)
    assert (found.shape, found.dtype) == (plain.shape, plain.dtype)
    np.testing.assert_allclose(found, plain, atol=1e-5 * np.abs(plain).max())


SIGNED = {"method": "Saliency", "absolute": False}


def by_hand(model, inputs, targets, **_given):
    return slope(model, inputs, targets).sum(1, keepdims=True).astype(np.float32)


@pytest.mark.parametrize("name", ["PixelFlipping", "MaxSensitivity", "MPRT"])
def test_metrics(name):
    """One asks for maps of a batch, one for those of noisy copies, and one for those of a model it draws anew."""
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    settings = {
        "PixelFlipping": {"features_in_step": 11},
        "MaxSensitivity": {"nr_samples": 2},
        "MPRT": {"similarity_func": quantus.similarity_func.correlation_pearson},
    }[name]

    def scored(**asks):
        np.random.seed(3)
        torch.manual_seed(3)
        metric = getattr(quantus, name)(disable_warnings=True, display_progressbar=False, **settings)
        return metric(Small(), INPUTS, CLASSES, device="cpu", batch_size=2, **asks)

    ours = scored(explain_func=explain, explain_func_kwargs=dict(SIGNED))
    plain = scored(explain_func=by_hand)
    assert type(ours) is type(plain)
    ours, plain = ([np.asarray(part, float) for part in _parts(one)] for one in (ours, plain))
    assert len(ours) == len(plain) > 0
    assert max(np.std(part) for part in plain) > 1e-3, "the metric says nothing"
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def _parts(scores):
    return [scores[key] for key in sorted(scores)] if isinstance(scores, dict) else [scores]


def measured(name, model, inputs, **asks):
    """What a metric of Quantus says, and the numbers that both generators give next."""
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    settings = {
        "PixelFlipping": {"features_in_step": 13},
        "ROAD": {"percentages": list(range(5, 100, 15))},
        "MPRT": {"similarity_func": quantus.similarity_func.correlation_pearson},
    }[name]
    np.random.seed(3)
    torch.manual_seed(3)
    metric = getattr(quantus, name)(disable_warnings=True, display_progressbar=False, **settings)
    found = metric(model, inputs, CLASSES, device="cpu", batch_size=2, **asks)
    return _parts(found), (torch.rand(1).item(), np.random.rand())


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("name", ["PixelFlipping", "ROAD", "MPRT"])
@pytest.mark.filterwarnings("ignore")
def test_metrics_accelerated(name, softmax):
    """Two ask models for answers to changed inputs; one asks for maps, of captum's, of a model it draws anew."""
    pytest.importorskip("captum", reason="captum, which Quantus asks, is not installed")
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    channels = 1 if name == "ROAD" else 3  # its imputation takes no others
    inputs = signals(shape=(channels, 13, 11)).numpy()
    maps = {"a_batch": slope(Small(channels=channels), inputs, CLASSES).sum(1, keepdims=True).astype(np.float32)}
    asked = {"explain_func": quantus.explain, "explain_func_kwargs": {"method": "Saliency"}}
    how = {**(asked if name == "MPRT" else maps), "softmax": softmax}
    plain, drawn = measured(name, Small(channels=channels), inputs, **how)
    model = Small(channels=channels)
    before = model_state(model)
    accelerate.reset()
    with xf.accelerate("quantus", "captum"):
        ours, drawn_too = measured(name, model, inputs, **how)
    assert model_state(model) == before
    assert drawn == drawn_too
    assert len(plain) == len(ours) > 0
    for one, other in zip(plain, ours, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert max(np.std(np.asarray(part, float)) for part in plain) > 1e-3 or name == "ROAD"
    report = accelerate.report()
    assert report.accelerated > 0, str(report)
    assert report.passed_on == 0, str(report)
    assert {row.method for row in report.rows} == {"Saliency" if name == "MPRT" else "PyTorchModel.predict"}


class Probable(torch.nn.Module):
    """Ends with a softmax of its own, which Quantus takes off where scores are asked for."""

    def __init__(self):
        super().__init__()
        self.small, self.softmax = Small(), torch.nn.Softmax(dim=-1)
        self.eval()

    def forward(self, x):
        return self.softmax(self.small(x))


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_models_that_end_with_a_softmax(softmax):
    pytest.importorskip("quantus", reason="Quantus is not installed")
    models = importlib.import_module("quantus.helpers.model.pytorch_model")

    def predicted(inputs=INPUTS):
        return models.PyTorchModel(Probable(), softmax=softmax).predict(inputs)

    plain = predicted()
    accelerate.reset()
    with xf.accelerate("quantus"):
        ours, wide = predicted(), predicted(INPUTS.astype(np.float64))
    assert (ours.dtype, ours.shape) == (plain.dtype, plain.shape)
    np.testing.assert_allclose(ours, plain, rtol=0, atol=2e-6 * np.abs(plain).max())
    assert np.array_equal(wide, ours)
    assert accelerate.report().accelerated == 2


@pytest.mark.parametrize(
    "how", [{"inputs": "text"}, {"train": True}, {"inputs": INPUTS[:, :2]}, {"nonsense": 1}], ids=str
)
@pytest.mark.filterwarnings("ignore")
def test_exceptions_stay_quantus(how):
    pytest.importorskip("quantus", reason="Quantus is not installed")
    models = importlib.import_module("quantus.helpers.model.pytorch_model")

    def run():
        given = dict(how)
        model = Small().train(given.pop("train", False))
        return models.PyTorchModel(model).predict(given.pop("inputs", INPUTS), **given)

    with pytest.raises(Exception) as plain:  # noqa: PT011 - the same one, whichever it is
        run()
    with xf.accelerate("quantus"), pytest.raises(type(plain.value)) as ours:
        run()
    assert str(ours.value) == str(plain.value)

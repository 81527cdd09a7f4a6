"""Explainers of all libraries on one small network, made and asked as their users do: for tests of what they share."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import torch
from subjects import signals
from torch import nn
from torch.nn import functional

LIBRARIES = {
    "captum": "captum.attr",
    "pytorch_grad_cam": "pytorch_grad_cam",
    "torchcam": "torchcam.methods",
    "shap": "shap",
    "lime": "lime.lime_image",
    "quantus": "quantus",
}
INPUTS = signals(3)
CELLS = torch.arange(13 * 11).view(1, 1, 13, 11) // 48
CLASSES = [1, 4, 0]


class Net(nn.Module):
    """What every library's rules see whole; `rectify`, if set, is a function that only ours see, and they then do not.

    Attributes:
        scale: of the answer, an attribute that the forward reads.
    """

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem, self.norm, self.tanh = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh()
            self.body, self.relu, self.pool = nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
            self.head = nn.Linear(24, 5)
            with torch.no_grad():
                self.norm.running_mean.normal_(0, 0.3)
                self.norm.running_var.uniform_(0.5, 2)
                self.head.weight.mul_(3)
        self.rectify, self.scale = None, 1.0
        self.eval()

    def forward(self, x):
        x = self.relu(self.body(self.tanh(self.norm(self.stem(x)))))
        x = x if self.rectify is None else self.rectify(x)
        scores = self.head(self.pool(x).flatten(1))
        return scores if self.scale == 1 else scores * self.scale


def rectified(x):
    """A function that captum's hooks do not see."""
    return functional.relu(x - 0.02)


def _captum(name, *of, layer="", **given):
    """(a function from a model to an explainer, a function that asks it)."""

    def made(model):
        attr = importlib.import_module("captum.attr")
        if of:
            return getattr(attr, name)(_captum(*of)[0](model))
        return getattr(attr, name)(*([model, model.get_submodule(layer)] if layer else [model]))

    def ask(explainer, inputs=INPUTS, **other):
        torch.manual_seed(7)
        np.random.seed(7)
        settings = {key: value for key, value in {**given, **other}.items() if key != "mask"}
        if name != "LayerActivation":
            settings = {"target": CLASSES[: len(inputs)], **settings}
        if "baselines" in settings:
            settings["baselines"] = settings["baselines"].to(inputs.dtype)
        return explainer.attribute(inputs, **settings)

    return made, ask


def _grad_cam(name, layer="body", **settings):
    def made(model):
        library = importlib.import_module("pytorch_grad_cam")
        return getattr(library, name)(model, [model.get_submodule(layer)], **settings)

    def ask(explainer, inputs=INPUTS, **other):
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
        np.random.seed(7)
        chosen = [targets.ClassifierOutputTarget(category) for category in CLASSES[: len(inputs)]]
        return explainer(inputs, **{"targets": chosen, **other})

    return made, ask


def _guided():
    def made(model):
        return importlib.import_module("pytorch_grad_cam").GuidedBackpropReLUModel(model)

    def ask(explainer, inputs=INPUTS, **other):
        return explainer(inputs[:1].clone(), **{"target_category": 1, **other})

    return made, ask


def _torchcam(name, **settings):
    def made(model):
        library = importlib.import_module("torchcam.methods")
        return getattr(library, name)(model, "body", input_shape=(3, 13, 11), **settings)

    def ask(explainer, inputs=INPUTS, *, forward=True, **other):
        if forward:
            explainer.model(inputs)
        torch.manual_seed(5)
        (found,) = explainer(**{"class_idx": CLASSES[: len(inputs)], **other})
        return found

    return made, ask


def _shap(name, **settings):
    def made(model):
        return getattr(importlib.import_module("shap"), name)(model, signals(4, seed=5))

    def ask(explainer, inputs=INPUTS, **other):
        return explainer.shap_values(inputs, **{**settings, **other})

    return made, ask


def _pixels(inputs):
    return inputs.permute(0, 2, 3, 1).numpy()


def _function(model):
    def predict(images):
        with torch.no_grad():
            return model(torch.as_tensor(images).permute(0, 3, 1, 2).float()).softmax(1).numpy()

    return predict


def _partition():
    def made(model):
        shap = importlib.import_module("shap")
        return shap.Explainer(_function(model), shap.maskers.Image(0, (13, 11, 3)))

    def ask(explainer, inputs=INPUTS, **other):
        settings = {"max_evals": 24, "batch_size": 7, "outputs": [1, 3], "silent": True, **other}
        return explainer(_pixels(inputs), **settings).values

    return made, ask


def _lime():
    def made(model):
        return importlib.import_module("lime.lime_image").LimeImageExplainer(random_state=3), _function(model)

    def ask(explainer, inputs=INPUTS, **other):
        limed, function = explainer
        limed.random_state = np.random.RandomState(3)
        limed.base.random_state = limed.random_state
        settings = {"num_samples": 20, "hide_color": 0, "labels": (1,), "top_labels": None, **other}
        found = limed.explain_instance(
            _pixels(inputs)[0].astype(float), function, segmentation_fn=lambda _image: CELLS[0, 0].numpy(), **settings
        )
        return np.array([weight for _, weight in sorted(found.local_exp[1])])

    return made, ask


def _quantus():
    def made(model):
        return importlib.import_module("quantus.helpers.model.pytorch_model").PyTorchModel(model, softmax=True)

    def ask(explainer, inputs=INPUTS, **other):
        return explainer.predict(inputs.numpy(), **other)

    return made, ask


_WINDOWS = {"sliding_window_shapes": (3, 5, 4), "strides": (3, 3, 2)}
CAPTUM = {
    "Saliency": _captum("Saliency"),
    "InputXGradient": _captum("InputXGradient"),
    "IntegratedGradients": _captum("IntegratedGradients", n_steps=6),
    "GradientShap": _captum("GradientShap", baselines=signals(4, seed=5)),
    "NoiseTunnel": _captum("NoiseTunnel", "Saliency", nt_samples=2),
    "NoiseTunnel of DeepLift": _captum("NoiseTunnel", "DeepLift", nt_samples=2),
    "Occlusion": _captum("Occlusion", **_WINDOWS),
    "FeatureAblation": _captum("FeatureAblation", feature_mask=CELLS),
    "FeaturePermutation": _captum("FeaturePermutation", feature_mask=CELLS),
    "ShapleyValueSampling": _captum("ShapleyValueSampling", feature_mask=CELLS, n_samples=2),
    "ShapleyValues": _captum("ShapleyValues", feature_mask=CELLS),
    "Lime": _captum("Lime", feature_mask=CELLS, n_samples=12),
    "KernelShap": _captum("KernelShap", feature_mask=CELLS, n_samples=12),
    "GuidedBackprop": _captum("GuidedBackprop"),
    "Deconvolution": _captum("Deconvolution"),
    "GuidedGradCam": _captum("GuidedGradCam", layer="body"),
    "DeepLift": _captum("DeepLift"),
    "DeepLiftShap": _captum("DeepLiftShap", baselines=signals(4, seed=5)),
    "LayerGradCam": _captum("LayerGradCam", layer="body"),
    "LayerActivation": _captum("LayerActivation", layer="body"),
    "LayerIntegratedGradients": _captum("LayerIntegratedGradients", layer="body", n_steps=5),
}
_CAMS = (
    *("GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "EigenCAM"),
    *("EigenGradCAM", "FullGrad", "ScoreCAM", "AblationCAM", "RandomCAM", "KPCA_CAM", "FEM", "SegEigenCAM"),
)
GRAD_CAM = {
    **{name: _grad_cam(name) for name in _CAMS},
    "ShapleyCAM": _grad_cam("ShapleyCAM"),
    "FinerCAM": _grad_cam("FinerCAM"),
    "RefineCAM": _grad_cam("RefineCAM"),
    "GuidedBackpropReLUModel": _guided(),
}
TORCHCAM = {
    "ScoreCAM": _torchcam("ScoreCAM"),
    "SSCAM": _torchcam("SSCAM", num_samples=2),
    "ISCAM": _torchcam("ISCAM", num_samples=2),
    "SmoothGradCAMpp": _torchcam("SmoothGradCAMpp", num_samples=2),
}
SHAP = {
    "GradientExplainer": _shap("GradientExplainer", nsamples=5, rseed=1),
    "DeepExplainer": _shap("DeepExplainer", check_additivity=False),
    "PartitionExplainer": _partition(),
}
EXPLAINERS = {
    f"{library} {name}": (library, *how)
    for library, table in {
        "captum": CAPTUM,
        "pytorch_grad_cam": GRAD_CAM,
        "torchcam": TORCHCAM,
        "shap": SHAP,
        "lime": {"LimeImageExplainer": _lime()},
        "quantus": {"PyTorchModel": _quantus()},
    }.items()
    for name, how in table.items()
}
# Whose own code uses the global generators, which threads share.
DRAWING = ("GradientShap", "NoiseTunnel", "FeaturePermutation", "ShapleyValueSampling", "Lime", "KernelShap", "SSCAM")
DRAWING = (*DRAWING, "SmoothGradCAMpp", "RandomCAM", "GradientExplainer", "NoiseTunnel of DeepLift", "DeepLiftShap")


FEW = (
    *("captum Saliency", "captum Occlusion", "captum LayerGradCam", "captum GuidedBackprop", "captum KernelShap"),
    *("pytorch_grad_cam GradCAM", "pytorch_grad_cam AblationCAM", "torchcam ScoreCAM", "shap GradientExplainer"),
    *("lime LimeImageExplainer", "quantus PyTorchModel"),
)


def of_each_kind(names):
    """Names as parameters: one explainer of each way to be served always, and all of them where slow tests run."""
    return [pytest.param(name, marks=[] if name in FEW else [pytest.mark.slow]) for name in names]


def explainer(name):
    """(library, made, ask) of one of `EXPLAINERS`; skips where the library is not installed."""
    library, made, ask = EXPLAINERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(LIBRARIES[library], reason=f"{library} is not installed")
    return library, made, ask


def array(result):
    """As one array."""
    if isinstance(result, tuple):
        (result,) = result
    return result.detach().double().numpy() if isinstance(result, torch.Tensor) else np.asarray(result, float)


def near(found, truth, tolerance=2e-5, scale=None):
    """Whether two results are the same up to rounding in float32."""
    found, truth = array(found), array(truth)
    assert found.shape == truth.shape
    largest = np.nanmax(np.abs(truth)) if scale is None else scale
    assert largest > 1e-6, "the network sleeps"
    np.testing.assert_allclose(found, truth, rtol=0, atol=tolerance * largest)

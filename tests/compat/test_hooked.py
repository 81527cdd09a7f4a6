"""Hooks of the user's at any place in a model, which look on, change what passes, or change what comes back."""

from __future__ import annotations

import pytest
import torch
from explainers import INPUTS, Net, explainer, near, of_each_kind

import xai_fast as xf
from xai_fast import accelerate


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


def _by_channel(gradient):
    """Other factors for other channels, which no scaling of a map takes back."""
    return gradient * torch.linspace(0.2, 1.5, gradient.shape[1]).view(1, -1, *[1] * (gradient.ndim - 2))


def output(module):
    module.register_forward_hook(lambda _module, _given, made: made * 1.5 + 0.1)


def given(module):
    module.register_forward_pre_hook(lambda _module, args: (args[0] * 0.8 - 0.2,))


def gradient_by_input(module):
    module.register_full_backward_hook(lambda _module, by, _of: tuple(g if g is None else _by_channel(g) for g in by))


def gradient_by_output(module):
    module.register_full_backward_pre_hook(lambda _module, of: (_by_channel(of[0]),))


def gradient_of_the_tensor(module):
    def hook(_module, _given, made):
        if made.requires_grad:
            made.register_hook(_by_channel)

    module.register_forward_hook(hook)


def nothing(module):
    module.register_full_backward_hook(lambda *_: None)


def nothing_of_the_tensor(module):
    def hook(_module, _given, made):
        if made.requires_grad:
            made.register_hook(lambda _gradient: None)

    module.register_forward_hook(hook)


HOOKS = [
    *(output, given, gradient_by_input, gradient_by_output, gradient_of_the_tensor, nothing, nothing_of_the_tensor),
]
# Whose rules are hooks of their libraries, or that look at layers; others stand for what asks for scores or gradients.
NAMES = [
    *(
        "captum Saliency",
        "captum KernelShap",
        "captum DeepLift",
        "captum DeepLiftShap",
        "captum NoiseTunnel of DeepLift",
    ),
    *("captum GuidedBackprop", "captum Deconvolution", "captum GuidedGradCam", "captum LayerGradCam"),
    *("captum LayerIntegratedGradients", "pytorch_grad_cam GradCAM", "pytorch_grad_cam GradCAMPlusPlus"),
    *("pytorch_grad_cam FullGrad", "pytorch_grad_cam ShapleyCAM", "pytorch_grad_cam FinerCAM"),
    *("pytorch_grad_cam GuidedBackpropReLUModel", "pytorch_grad_cam AblationCAM", "torchcam SmoothGradCAMpp"),
    *("torchcam ScoreCAM", "shap GradientExplainer", "shap DeepExplainer"),
]

UNHOOKED = ("Deep", "Deconvolution")  # which are served without hooks, or with some of them, only


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("name", of_each_kind(NAMES))
@pytest.mark.filterwarnings("ignore")
def test_a_hook_at_any_place(name, hook):
    library, made, ask = explainer(name)

    def run(place):
        model = Net()
        hook(model.get_submodule(place))
        one = made(model)
        ask(one, INPUTS.clone())  # of some, the first call on a layer is always their library's own
        return ask(one, INPUTS.clone())

    for place in ("stem", "norm", "tanh", "body", "relu", "pool", "head"):
        plain = run(place)
        with xf.accelerate(library):
            near(run(place), plain)
    assert accelerate.report().accelerated > 0 or any(part in name for part in UNHOOKED), str(accelerate.report())

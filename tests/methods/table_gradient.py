"""The gradient methods' part of the table: replicas, the settings to test them under, and closed forms."""

from __future__ import annotations

import math

import replicas
import replicas_gradient
import torch
from method_case import Linear, cases
from subjects import signals
from torch import nn


def references(n, shape=(3, 13, 11)):
    """(n, *shape) of quarters, so that the text of such a tensor is the tensor."""
    return (signals(n, shape, seed=9) * 4).round() / 4


(_saliency,) = cases("Saliency", replicas.saliency, {"channels": "max"})
(_input_x_gradient,) = cases("InputXGradient", replicas.input_x_gradient, {})
(_integrated,) = cases("IntegratedGradients", replicas_gradient.integrated_gradients, {"n_steps": 3})
(_guided_at_layer,) = cases("GuidedBackprop", replicas_gradient.guided_backprop, {"layer": "stem_norm"})

# For inputs (N, 3, 13, 11) of `subjects.Small`. The first row of a method stands for it where one is enough.
GRADIENT_CASES = [
    *cases(
        "IntegratedGradients",
        replicas_gradient.integrated_gradients,
        {"n_steps": 5},
        {},
        {"n_steps": 1, "quadrature": "middle", "baseline": (0.5, -1.0, 2.0)},
        {"n_steps": 4, "quadrature": "left"},
        {"n_steps": 4, "quadrature": "right", "baseline": "image_mean"},
        {"n_steps": 6, "quadrature": "middle", "baseline": 0.7},
        {"n_steps": 6, "quadrature": "trapezoid"},
        {"n_steps": 2, "quadrature": "trapezoid", "baseline": references(1)},
        {"n_steps": 5, "layer": "body_norm"},
        {"n_steps": 3, "layer": "stem", "baseline": -0.4, "quadrature": "right"},
    ),
    *cases(
        "SmoothGrad",
        replicas_gradient.smooth_grad,
        {"n_samples": 4},
        {},
        {"n_samples": 3, "noise": 0.8, "relative": False, "seed": 7},
        {"n_samples": 5, "aggregate": "square"},
        {"n_samples": 5, "aggregate": "variance", "seed": 2**63},
        {"n_samples": 6, "antithetic": True},
        {"n_samples": 4, "antithetic": True, "aggregate": "square"},
        {"n_samples": 1, "noise": 0.0},
    ),
    *cases(
        "SmoothGrad",
        replicas_gradient.smooth_grad,
        {"n_samples": 3},
        {"n_samples": 3, "aggregate": "square"},
        wraps=_saliency,
    ),
    *cases("SmoothGrad", replicas_gradient.smooth_grad, {"n_samples": 3}, wraps=_input_x_gradient),
    *cases("SmoothGrad", replicas_gradient.smooth_grad, {"n_samples": 4, "antithetic": True}, wraps=_integrated),
    *cases("SmoothGrad", replicas_gradient.smooth_grad, {"n_samples": 3, "aggregate": "variance"}, wraps=_integrated),
    *cases("SmoothGrad", replicas_gradient.smooth_grad, {"n_samples": 3}, wraps=_guided_at_layer),
    *cases(
        "GradientShap",
        replicas_gradient.gradient_shap,
        {"baselines": 0.3, "n_samples": 5},
        {"baselines": references(4), "n_samples": 6, "seed": 3},
        {"baselines": references(2), "n_samples": 5, "noise": 0.4},
        {"baselines": (0.5, -1.0, 2.0), "n_samples": 3, "layer": "body_norm"},
        {"baselines": references(3), "n_samples": 4, "noise": 0.4, "layer": "stem"},
    ),
    *cases(
        "DeepLift",
        replicas_gradient.deep_lift,
        {},
        {"baselines": (0.5, -1.0, 2.0)},
        {"baselines": references(1)},
        {"layer": "body_norm"},
        {"layer": "stem", "baselines": references(1)},
    ),
    *cases(
        "DeepLiftShap",
        replicas_gradient.deep_lift_shap,
        {"baselines": 0.3},
        {"baselines": references(3)},
        {"baselines": references(1)},
        {"baselines": references(2), "layer": "pool"},
        {"baselines": references(2), "layer": "stem_norm"},
    ),
    *cases("GuidedBackprop", replicas_gradient.guided_backprop, {}, {"layer": "stem_norm"}, {"layer": "body"}),
    *cases("Deconvolution", replicas_gradient.deconvolution, {}, {"layer": "stem_norm"}, {"layer": "body"}),
    *cases("GuidedGradCAM", replicas_gradient.guided_gradcam, {"layer": "body_norm"}, {"layer": "stem"}),
    *cases(
        "ErrorAttribution",
        replicas_gradient.error_attribution,
        {},
        {"against": "predicted"},
        {"kind": "activation", "layer": "body_norm"},
        {"kind": "activation", "layer": "body_norm", "resolution": "native"},
        {"kind": "activation", "against": "predicted", "layer": "stem"},
        {"kind": "activation", "against": "predicted", "layer": "cells"},
        {"kind": "activation", "layer": "cells"},
    ),
]


def _rectified(shape, *layers, seed=4):
    """A ReLU on the input, and linear layers behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tail = layers or (nn.Flatten(), nn.Linear(math.prod(shape), 4))
        model = nn.Sequential(nn.ReLU(), *tail)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    return model


def _weight_of(model, shape, target):
    return model[2].weight.detach()[target].view(shape)


def _linear_integrated_gradients(inputs, target):
    """The gradient is the same all along the path."""
    model = Linear(inputs.shape[1:])
    return model, {"baseline": 0.25, "n_steps": 3}, model.weight.detach()[target] * (inputs - 0.25)


def _linear_smooth_grad(inputs, target):
    """Noise changes no gradient."""
    model = Linear(inputs.shape[1:])
    return model, {"n_samples": 3}, model.weight.detach()[target].expand_as(inputs)


def _linear_gradient_shap(inputs, target):
    """Wherever the points are drawn, the gradient is the same."""
    model = Linear(inputs.shape[1:])
    return model, {"baselines": 0.25, "n_samples": 3}, model.weight.detach()[target] * (inputs - 0.25)


def _linear_deep_lift(inputs, target):
    """A ReLU's multiplier times the input's difference is the difference of what it returns."""
    model = _rectified(inputs.shape[1:])
    weight = _weight_of(model, inputs.shape[1:], target)
    return model, {"baselines": -0.25}, weight * inputs.clamp_min(0)


def _linear_deep_lift_shap(inputs, target):
    """The references' mean behind the ReLU is what counts."""
    model, baselines = _rectified(inputs.shape[1:]), references(3, inputs.shape[1:])
    weight = _weight_of(model, inputs.shape[1:], target)
    return model, {"baselines": baselines}, weight * (inputs.clamp_min(0) - baselines.clamp_min(0).mean(0))


def _linear_guided_backprop(inputs, target):
    """What is positive of the weights, where the input is."""
    model = _rectified(inputs.shape[1:])
    return model, {}, _weight_of(model, inputs.shape[1:], target).clamp_min(0) * (inputs > 0)


def _linear_deconvolution(inputs, target):
    """What is positive of the weights."""
    model = _rectified(inputs.shape[1:])
    return model, {}, _weight_of(model, inputs.shape[1:], target).clamp_min(0).expand_as(inputs)


def _linear_guided_gradcam(inputs, target):
    """Features of single pixels: each channel's weight in the score, and CAM."""
    shape = inputs.shape[1:]
    tail = nn.Conv2d(shape[0], 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    model = _rectified(shape, *tail, seed=5)  # one whose class has some of either sign
    weight = model[4].weight.detach()[target] / inputs[0, 0].numel()
    cam = torch.einsum("k,nkhw->nhw", weight, model[:2](inputs).detach())[:, None].clamp_min(0)
    slope = torch.einsum("k,kc->c", weight, model[1].weight.detach()[:, :, 0, 0])[:, None, None]
    return model, {"layer": "1"}, slope.clamp_min(0) * (inputs > 0) * cam


def _linear_error_attribution(inputs, target):
    """The gradient of the cross entropy by the scores is p − 1 at the true class."""
    model = Linear(inputs.shape[1:])
    share = model(inputs).detach().softmax(1)
    share[:, target] -= 1
    return model, {}, torch.einsum("nk,kchw->nchw", share, model.weight.detach())


GRADIENT_CLOSED_FORMS = {
    "IntegratedGradients": _linear_integrated_gradients,
    "SmoothGrad": _linear_smooth_grad,
    "GradientShap": _linear_gradient_shap,
    "DeepLift": _linear_deep_lift,
    "DeepLiftShap": _linear_deep_lift_shap,
    "GuidedBackprop": _linear_guided_backprop,
    "Deconvolution": _linear_deconvolution,
    "GuidedGradCAM": _linear_guided_gradcam,
    "ErrorAttribution": _linear_error_attribution,
}

"""Captum 0.9 over our engine: which of its classes are served, and subclasses of them for use without `accelerate`.

`from xai_fast.compat.captum import Occlusion` is captum's class with the accelerated method. Served are one floating
input tensor (N, C, *S), alone or as a tuple, of a module in eval mode or of a plain callable; what else is not covered
each file says, and captum's own code runs it. `captum.metrics` needs nothing here: it calls the methods it is given.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library, subclass

# Class: the module of captum that defines it, and what serves it here.
_SERVED = {
    "Saliency": ("saliency", "gradients:saliency"),
    "InputXGradient": ("input_x_gradient", "gradients:input_x_gradient"),
    "IntegratedGradients": ("integrated_gradients", "gradients:integrated_gradients"),
    "GradientShap": ("gradient_shap", "gradients:gradient_shap"),
    "GuidedBackprop": ("guided_backprop_deconvnet", "rectified:guided_backprop"),
    "Deconvolution": ("guided_backprop_deconvnet", "rectified:deconvolution"),
    "GuidedGradCam": ("guided_grad_cam", "composed:guided_grad_cam"),
    "NoiseTunnel": ("noise_tunnel", "composed:noise_tunnel"),
    "Occlusion": ("occlusion", "perturbations:occlusion"),
    "FeatureAblation": ("feature_ablation", "perturbations:feature_ablation"),
    "FeaturePermutation": ("feature_permutation", "perturbations:feature_permutation"),
    "ShapleyValueSampling": ("shapley_value", "coalitions:shapley"),
    "ShapleyValues": ("shapley_value", "coalitions:shapley"),
    "Lime": ("lime", "coalitions:surrogate"),
    "KernelShap": ("kernel_shap", "coalitions:surrogate"),
    "DeepLift": ("deep_lift", "deep_lift:deep_lift"),
    "DeepLiftShap": ("deep_lift", "deep_lift:deep_lift_shap"),
    "LayerGradCam": ("layer.grad_cam", "layers:layer_grad_cam"),
    "LayerActivation": ("layer.layer_activation", "layers:layer_activation"),
    "LayerIntegratedGradients": ("layer.layer_integrated_gradients", "layers:layer_integrated_gradients"),
}

_DRAWING = ("GradientShap", "NoiseTunnel", "ShapleyValueSampling", "Lime", "KernelShap", "DeepLiftShap")

# Those whose own code puts hooks into the model, or runs a method that may.
_INTRUDING = ("GuidedBackprop", "Deconvolution", "GuidedGradCam", "NoiseTunnel", "DeepLift", "DeepLiftShap")

METHODS = {
    name: Accelerated(
        name,
        f"captum.attr._core.{owner}",
        f"{__name__}.{served}",
        draws=name in _DRAWING,
        intrudes=name in _INTRUDING or name.startswith("Layer"),
    )
    for name, (owner, served) in _SERVED.items()
}
LIBRARY = Library("captum", trigger="captum.attr", methods=tuple(METHODS.values()))


def __getattr__(name: str) -> Any:
    if name in METHODS:
        return subclass(METHODS[name].owner, name, (METHODS[name],), __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *METHODS])

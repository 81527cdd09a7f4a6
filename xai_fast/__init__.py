"""Attribution for PyTorch vision models: the methods you know, the same numbers, much faster.

Nothing heavy is imported before it is used: torch comes with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

# Public name: the module that defines it. Methods come from the registry.
_HOMES = {
    "Engine": "xai_fast.engine",
    "Cost": "xai_fast.engine",
    "NonFiniteError": "xai_fast.engine.run",
    "Explanation": "xai_fast.results.explanation",
    "FilterImages": "xai_fast.results.filter_images",
    "FilterMaps": "xai_fast.results.filter_maps",
    "TextExplanation": "xai_fast.results.text_explanation",
    "Preprocess": "xai_fast.images.preprocess",
    "MethodInfo": "xai_fast.methods",
    "load": "xai_fast.models",
}
_MODULES = {
    "segments": "xai_fast.images.segments",
    "targets": "xai_fast.core.targets",
    "methods": "xai_fast.methods",
    "explain": "xai_fast.explain",
}
_METHODS = (
    "AblationCAM",
    "ActivationMaximization",
    "CAM",
    "ClassAttention",
    "DRISE",
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "EigenCAM",
    "EigenGradCAM",
    "ErrorAttribution",
    "FeatureAblation",
    "FilterActivation",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GradientShap",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "KPCACAM",
    "KernelShap",
    "LayerCAM",
    "Lime",
    "LimeText",
    "Occlusion",
    "PartitionShap",
    "PositionAttention",
    "RISE",
    "RandomCAM",
    "ReciproCAM",
    "RefineCAM",
    "Saliency",
    "SegEigenCAM",
    "ShapleyCAM",
    "ShapleySampling",
    "ShapleyText",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "XGradCAM",
)

__all__ = [  # noqa: RUF022 - sorted letter by letter, methods in capitals among the others
    "AblationCAM",
    "ActivationMaximization",
    "CAM",
    "ClassAttention",
    "Cost",
    "DRISE",
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "EigenCAM",
    "EigenGradCAM",
    "Engine",
    "ErrorAttribution",
    "Explanation",
    "FeatureAblation",
    "FilterActivation",
    "FilterImages",
    "FilterMaps",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GradientShap",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "KPCACAM",
    "KernelShap",
    "LayerCAM",
    "Lime",
    "LimeText",
    "MethodInfo",
    "NonFiniteError",
    "Occlusion",
    "PartitionShap",
    "PositionAttention",
    "Preprocess",
    "RISE",
    "RandomCAM",
    "ReciproCAM",
    "RefineCAM",
    "Saliency",
    "SegEigenCAM",
    "ShapleyCAM",
    "ShapleySampling",
    "ShapleyText",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "TextExplanation",
    "XGradCAM",
    "explain",
    "load",
    "methods",
    "segments",
    "targets",
]

if TYPE_CHECKING:
    from xai_fast.core import targets as targets
    from xai_fast.engine import Cost as Cost
    from xai_fast.engine import Engine as Engine
    from xai_fast.engine.run import NonFiniteError as NonFiniteError
    from xai_fast.explain import explain as explain
    from xai_fast.methods import MethodInfo as MethodInfo
    from xai_fast.methods import methods as methods
    from xai_fast.methods.activation_maximization import ActivationMaximization as ActivationMaximization
    from xai_fast.methods.cam.ablation_cam import AblationCAM as AblationCAM
    from xai_fast.methods.cam.composed_cams import CAM as CAM
    from xai_fast.methods.cam.composed_cams import FinerCAM as FinerCAM
    from xai_fast.methods.cam.composed_cams import RandomCAM as RandomCAM
    from xai_fast.methods.cam.composed_cams import RefineCAM as RefineCAM
    from xai_fast.methods.cam.eigen_cams import KPCACAM as KPCACAM
    from xai_fast.methods.cam.eigen_cams import EigenCAM as EigenCAM
    from xai_fast.methods.cam.eigen_cams import EigenGradCAM as EigenGradCAM
    from xai_fast.methods.cam.eigen_cams import SegEigenCAM as SegEigenCAM
    from xai_fast.methods.cam.fullgrad import FullGrad as FullGrad
    from xai_fast.methods.cam.gradcam import GradCAM as GradCAM
    from xai_fast.methods.cam.gradient_cams import GradCAMElementWise as GradCAMElementWise
    from xai_fast.methods.cam.gradient_cams import GradCAMPlusPlus as GradCAMPlusPlus
    from xai_fast.methods.cam.gradient_cams import HiResCAM as HiResCAM
    from xai_fast.methods.cam.gradient_cams import LayerCAM as LayerCAM
    from xai_fast.methods.cam.gradient_cams import ShapleyCAM as ShapleyCAM
    from xai_fast.methods.cam.gradient_cams import XGradCAM as XGradCAM
    from xai_fast.methods.cam.overviews import ClassAttention as ClassAttention
    from xai_fast.methods.cam.overviews import PositionAttention as PositionAttention
    from xai_fast.methods.cam.recipro_cam import ReciproCAM as ReciproCAM
    from xai_fast.methods.cam.smooth_gradcam import SmoothGradCAMPlusPlus as SmoothGradCAMPlusPlus
    from xai_fast.methods.deconvolution import Deconvolution as Deconvolution
    from xai_fast.methods.deep_lift import DeepLift as DeepLift
    from xai_fast.methods.deep_lift import DeepLiftShap as DeepLiftShap
    from xai_fast.methods.error_attribution import ErrorAttribution as ErrorAttribution
    from xai_fast.methods.feature_ablation import FeatureAblation as FeatureAblation
    from xai_fast.methods.filter_activation import FilterActivation as FilterActivation
    from xai_fast.methods.gradient_shap import GradientShap as GradientShap
    from xai_fast.methods.guided_backprop import GuidedBackprop as GuidedBackprop
    from xai_fast.methods.guided_gradcam import GuidedGradCAM as GuidedGradCAM
    from xai_fast.methods.input_x_gradient import InputXGradient as InputXGradient
    from xai_fast.methods.integrated_gradients import IntegratedGradients as IntegratedGradients
    from xai_fast.methods.kernel_shap import KernelShap as KernelShap
    from xai_fast.methods.lime import Lime as Lime
    from xai_fast.methods.occlusion import Occlusion as Occlusion
    from xai_fast.methods.partition_shap import PartitionShap as PartitionShap
    from xai_fast.methods.rise import DRISE as DRISE
    from xai_fast.methods.rise import RISE as RISE
    from xai_fast.methods.saliency import Saliency as Saliency
    from xai_fast.methods.shapley_sampling import ShapleySampling as ShapleySampling
    from xai_fast.methods.smooth_grad import SmoothGrad as SmoothGrad
    from xai_fast.methods.text import LimeText as LimeText
    from xai_fast.methods.text import ShapleyText as ShapleyText
    from xai_fast.models import load as load

    from .images import segments as segments
    from .images.preprocess import Preprocess as Preprocess
    from .results.explanation import Explanation as Explanation
    from .results.filter_images import FilterImages as FilterImages
    from .results.filter_maps import FilterMaps as FilterMaps
    from .results.text_explanation import TextExplanation as TextExplanation


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _METHODS:
        return getattr(importlib.import_module("xai_fast.methods"), name)
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

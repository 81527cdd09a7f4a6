"""Attribution for PyTorch vision models: the methods you know, the same numbers, much faster.

Nothing heavy is imported before it is used: torch comes with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

# Public names that are no methods, and the modules that define them; the methods' names are the registry's.
_HOMES = {
    "ConceptMaps": "xai_fast.results.concept_maps",
    "Cost": "xai_fast.engine",
    "Decisions": "xai_fast.engine",
    "Engine": "xai_fast.engine",
    "Explanation": "xai_fast.results.explanation",
    "FilterImages": "xai_fast.results.filter_images",
    "FilterMaps": "xai_fast.results.filter_maps",
    "MethodInfo": "xai_fast.methods.registry",
    "NonFiniteError": "xai_fast.engine.finite",
    "Preprocess": "xai_fast.images.preprocess",
    "TextExplanation": "xai_fast.results.text_explanation",
    "load": "xai_fast.models",
}
# Public names that are modules.
_MODULES = {
    "accelerate": "xai_fast.accelerate",
    "audit": "xai_fast.audit",
    "explain": "xai_fast.explain",
    "methods": "xai_fast.methods",
    "segments": "xai_fast.images.segments",
    "targets": "xai_fast.core.targets",
}

if TYPE_CHECKING:  # for editors and type checkers, which read and do not run; a test holds it equal to the registry
    from xai_fast import accelerate as accelerate
    from xai_fast.audit.auditing import audit as audit
    from xai_fast.core import targets as targets
    from xai_fast.engine import Cost as Cost
    from xai_fast.engine import Decisions as Decisions
    from xai_fast.engine import Engine as Engine
    from xai_fast.engine.finite import NonFiniteError as NonFiniteError
    from xai_fast.explain import explain as explain
    from xai_fast.images import segments as segments
    from xai_fast.images.preprocess import Preprocess as Preprocess
    from xai_fast.methods import methods as methods
    from xai_fast.methods.activation_maximization import ActivationMaximization as ActivationMaximization
    from xai_fast.methods.attention.attn_lrp import AttnLRP as AttnLRP
    from xai_fast.methods.attention.legrad import LeGrad as LeGrad
    from xai_fast.methods.attention.rollout import AttentionRollout as AttentionRollout
    from xai_fast.methods.attention.rollout import GradientAttentionRollout as GradientAttentionRollout
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
    from xai_fast.methods.cam.score_cams import ISCAM as ISCAM
    from xai_fast.methods.cam.score_cams import SSCAM as SSCAM
    from xai_fast.methods.cam.score_cams import ScoreCAM as ScoreCAM
    from xai_fast.methods.cam.smooth_gradcam import SmoothGradCAMPlusPlus as SmoothGradCAMPlusPlus
    from xai_fast.methods.deconvolution import Deconvolution as Deconvolution
    from xai_fast.methods.deep_feature_factorization import DeepFeatureFactorization as DeepFeatureFactorization
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
    from xai_fast.methods.registry import MethodInfo as MethodInfo
    from xai_fast.methods.rise import DRISE as DRISE
    from xai_fast.methods.rise import RISE as RISE
    from xai_fast.methods.saliency import Saliency as Saliency
    from xai_fast.methods.shapley_sampling import ShapleySampling as ShapleySampling
    from xai_fast.methods.smooth_grad import SmoothGrad as SmoothGrad
    from xai_fast.methods.text import LimeText as LimeText
    from xai_fast.methods.text import ShapleyText as ShapleyText
    from xai_fast.models import load as load
    from xai_fast.results.concept_maps import ConceptMaps as ConceptMaps
    from xai_fast.results.explanation import Explanation as Explanation
    from xai_fast.results.filter_images import FilterImages as FilterImages
    from xai_fast.results.filter_maps import FilterMaps as FilterMaps
    from xai_fast.results.text_explanation import TextExplanation as TextExplanation


def _homes() -> dict[str, str]:
    """The module of every public name that is none itself."""
    from xai_fast.methods.registry import methods

    return _HOMES | {name: f"xai_fast.methods.{info.module}" for name, info in methods().items()}


if not TYPE_CHECKING:  # which would take every name for granted

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return sorted([*_homes(), *_MODULES])
        if name in _MODULES:
            return importlib.import_module(_MODULES[name])
        if not name.startswith("_") and (home := _homes().get(name)):
            return getattr(importlib.import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "__all__", *_homes(), *_MODULES})

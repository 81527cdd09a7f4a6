"""pytorch_grad_cam 1.5 over our engine: which of its classes are served, and subclasses for use without `accelerate`.

Every class runs grad-cam's own formulas, scaling and sums over what the engine answers: activations and gradients of
layers, in place of one pass through the whole model and its parameters (`passes`); the weights of AblationCAM and
ScoreCAM (`weights`), where what follows a layer runs again alone; the sums of FullGrad; principal components
(`projections`); ShapleyCAM's second derivatives (`curvature`); FinerCAM and guided backpropagation (`composed`).
KPCA_CAM's kernels and DeepFeatureFactorization are grad-cam's own. Where its formulas are not the papers',
`xai_fast.methods.cam.variants` says how. The subclasses do not have the principal components, which are functions of
grad-cam's modules.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library, subclass

_AT = "pytorch_grad_cam"


def _method(name: str, owner: str, served: str, method: str = "forward") -> Accelerated:
    """Its hooks stay in the model from the constructor on, and every forward of another object's fires them."""
    part = method == "get_cam_weights"
    return Accelerated(name, f"{_AT}.{owner}", f"{__name__}.{served}", method, part=part, intrudes=True)


_METHODS = (
    _method("BaseCAM", "base_cam", "passes:forward"),
    _method("FinerCAM", "finer_cam", "composed:finer"),
    _method("GuidedBackpropReLUModel", "guided_backprop", "composed:guided_backprop", "__call__"),
    _method(
        "DeepFeatureFactorization",
        "feature_factorization.deep_feature_factorization",
        "composed:factorization",
        "__call__",
    ),
    _method("AblationCAM", "ablation_cam", "weights:ablation", "get_cam_weights"),
    _method("ScoreCAM", "score_cam", "weights:score", "get_cam_weights"),
)
_READERS = ("base_cam", "eigen_cam", "eigen_grad_cam", "layer_cam", "hirescam", "grad_cam_elementwise", "fullgrad_cam")
_UPWARDS = "get_2d_projection_with_sign_correction"
_FUNCTIONS = (
    *(
        Accelerated("get_2d_projection", f"{_AT}.{reader}", f"{__name__}.projections:first_component", "")
        for reader in _READERS
    ),
    Accelerated(_UPWARDS, f"{_AT}.seg_eigen_cam", f"{__name__}.projections:first_component_upwards", ""),
)
LIBRARY = Library(_AT, trigger=_AT, methods=(*_METHODS, *_FUNCTIONS))

CLASSES = {
    "GradCAM": "grad_cam",
    "HiResCAM": "hirescam",
    "GradCAMElementWise": "grad_cam_elementwise",
    "GradCAMPlusPlus": "grad_cam_plusplus",
    "XGradCAM": "xgrad_cam",
    "ShapleyCAM": "shapley_cam",
    "AblationCAM": "ablation_cam",
    "ScoreCAM": "score_cam",
    "EigenCAM": "eigen_cam",
    "EigenGradCAM": "eigen_grad_cam",
    "SegEigenCAM": "seg_eigen_cam",
    "LayerCAM": "layer_cam",
    "FullGrad": "fullgrad_cam",
    "RandomCAM": "random_cam",
    "KPCA_CAM": "kpca_cam",
    "FEM": "fem",
    "FinerCAM": "finer_cam",
    "GuidedBackpropReLUModel": "guided_backprop",
}


def __getattr__(name: str) -> Any:
    if name in CLASSES:
        return subclass(f"{_AT}.{CLASSES[name]}", name, _METHODS, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *CLASSES])

"""torchcam 0.5 over our engine: which of its extractors are served, and subclasses for use without `accelerate`.

Served are those that run the model themselves: `ScoreCAM`, `SSCAM`, `ISCAM` (their masks, draws and sums over our
scores) and `SmoothGradCAMpp` (its noise and formula over our gradients). The others read what the user's own forward
left behind and cost one backward through what follows the layer; they run torchcam's code, and the report says so.
`overlay_mask` draws a picture and asks no model: it is torchcam's, and listed as well.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library, subclass

_ACTIVATION, _GRADIENT = "torchcam.methods.activation", "torchcam.methods.gradient"
_SCORES, _OWN = f"{__name__}.extractors:scored", f"{__name__}.extractors:own_forward"
_METHODS = (
    Accelerated("ScoreCAM", _ACTIVATION, _SCORES, "_get_score_weights", intrudes=True),
    Accelerated("SSCAM", _ACTIVATION, _SCORES, "_get_score_weights", draws=True, intrudes=True),
    Accelerated("ISCAM", _ACTIVATION, _SCORES, "_get_score_weights", intrudes=True),
    Accelerated(
        "SmoothGradCAMpp",
        _GRADIENT,
        f"{__name__}.extractors:smoothed",
        "_compute_smoothgrad_weights",
        draws=True,
        intrudes=True,
    ),
    Accelerated("CAM", _ACTIVATION, _OWN, "_get_weights"),
    *(
        Accelerated(name, _GRADIENT, _OWN, "_get_weights")
        for name in ("GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "LeGrad")
    ),
    Accelerated("overlay_mask", "torchcam.utils", f"{__name__}.extractors:drawing", ""),
)
LIBRARY = Library("torchcam", trigger="torchcam.methods", methods=_METHODS, apart=("torchcam.utils",))

CLASSES = {"ScoreCAM": _ACTIVATION, "SSCAM": _ACTIVATION, "ISCAM": _ACTIVATION, "SmoothGradCAMpp": _GRADIENT}


def __getattr__(name: str) -> Any:
    if name in CLASSES:
        return subclass(CLASSES[name], name, _METHODS, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *CLASSES])

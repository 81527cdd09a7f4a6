"""shap 0.51 over our engine: which of its explainers of torch models are served.

`GradientExplainer` (our sums over shap's draws) and `DeepExplainer` (our multipliers). PartitionExplainer, and every
other explainer of a function from arrays to arrays, runs shap's code: what is behind the function cannot be seen.
"""

from __future__ import annotations

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library

_METHODS = (
    Accelerated(
        "_PyTorchGradient",
        "shap.explainers._gradient",
        f"{__name__}.explainers:gradient",
        "shap_values",
        draws=True,
        title="GradientExplainer",
    ),
    Accelerated(
        "PyTorchDeep",
        "shap.explainers._deep.deep_pytorch",
        f"{__name__}.explainers:deep",
        "shap_values",
        title="DeepExplainer",
    ),
)
LIBRARY = Library("shap", trigger="shap", methods=_METHODS)

"""shap 0.51 to 0.54 over our engine: which of its explainers of torch models are served.

`GradientExplainer` (our sums over shap's draws), `DeepExplainer` (our multipliers), and `PartitionExplainer`, whose own
code runs while the engine answers for torch modules that are seen in the function. Other explainers of functions run
shap's code.
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
        intrudes=True,
    ),
    Accelerated("PartitionExplainer", "shap.explainers._partition", f"{__name__}.explainers:partition", "explain_row"),
)
LIBRARY = Library("shap", trigger="shap", methods=_METHODS)

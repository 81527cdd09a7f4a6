"""Quantus 0.6 over our engine: `explain`, for its `explain_func`, and what its metrics ask models by themselves.

Its metrics run their own code (orders, imputations, sums). What they ask of a torch model, changed inputs by
`PyTorchModel.predict`, the engine answers: PixelFlipping, ROAD and their kin. Those that ask for maps (MPRT, and every
metric without `a_batch`) get them from `explain`, or from captum's methods, accelerated as those are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library

if TYPE_CHECKING:
    from .explaining import explain

__all__ = ["LIBRARY", "explain"]

_METHODS = (
    Accelerated(
        "PyTorchModel", "quantus.helpers.model.pytorch_model", f"{__name__}.predictions:predicted", "predict", part=True
    ),
)
LIBRARY = Library("quantus", trigger="quantus", methods=_METHODS)


def __getattr__(name: str) -> Any:
    if name == "explain":  # heavy, and `accelerate` does without
        from .explaining import explain

        return explain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

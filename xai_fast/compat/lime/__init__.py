"""lime 0.2 over our engine: `LimeImageExplainer`, and a subclass for use without `accelerate`.

lime's own draws, distances and fits over images that are written faster and, where the classifier is a torch module or
an `xf.Engine` in place of a function, over the engine's class scores. `LimeTextExplainer` is lime's own: its time goes
into the classifier, which cannot be seen.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library, subclass

_METHODS = (Accelerated("LimeImageExplainer", "lime.lime_image", f"{__name__}.images:data_labels", "data_labels"),)
LIBRARY = Library("lime", trigger="lime.lime_image", methods=_METHODS)


def __getattr__(name: str) -> Any:
    if name == "LimeImageExplainer":
        return subclass("lime.lime_image", name, _METHODS, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "LimeImageExplainer"])

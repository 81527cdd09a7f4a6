"""lime 0.2 over our engine: `LimeImageExplainer`, `LimeTextExplainer`, and subclasses for use without `accelerate`.

lime's own draws, distances and fits over images and texts that are written faster and, where the classifier of images
is a torch module or an `xf.Engine` in place of a function, over the engine's class scores. What time a classifier of
texts takes cannot be saved: it is asked as lime asks it.
"""

from __future__ import annotations

from typing import Any

from xai_fast.compat.calls import Accelerated
from xai_fast.compat.patches import Library, subclass

_METHODS = (
    Accelerated("LimeImageExplainer", "lime.lime_image", f"{__name__}.images:data_labels", "data_labels"),
    Accelerated(
        "LimeTextExplainer",
        "lime.lime_text",
        f"{__name__}.texts:data_labels_distances",
        "_LimeTextExplainer__data_labels_distances",
    ),
)
LIBRARY = Library("lime", trigger="lime.lime_image", methods=_METHODS, apart=("lime.lime_text",))

CLASSES = {"LimeImageExplainer": "lime.lime_image", "LimeTextExplainer": "lime.lime_text"}


def __getattr__(name: str) -> Any:
    if name in CLASSES:
        return subclass(CLASSES[name], name, _METHODS, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *CLASSES])

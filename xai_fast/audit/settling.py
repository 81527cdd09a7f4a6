"""Methods as a run keeps them: bound to its engine, with the layers that "auto" means there."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from xai_fast.engine import Engine
from xai_fast.methods.base import AbstractMethod


def settled(method: AbstractMethod, engine: Engine, example: Tensor) -> AbstractMethod:
    """The method bound to an engine, with the layers that "auto" means for the example."""
    wrapped = getattr(method, "method", None)
    if isinstance(wrapped, AbstractMethod):
        return dataclasses.replace(method, model=settled(wrapped, engine, example))
    bound: Any = dataclasses.replace(method, model=engine)
    if isinstance(layer := getattr(bound, "layer", None), str) and layer == "auto":
        names = bound.layers(example)
        bound = dataclasses.replace(bound, layer=names[0] if len(names) == 1 else list(names))
    return bound

"""The deepest maps of several sizes, for methods that look at more than one depth of a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from xai_fast.core.copies import unwrapped
from xai_fast.engine import Engine

_SCALES = 3


def scales_of(engine: Engine, inputs: Tensor) -> tuple[str, ...]:
    """Names of up to three layers: the one that "auto" means, and the last of every other shape before it.

    Looked at are the neighbours of that layer and of the blocks around it, as the module lists them. Where all have one
    shape, as in a transformer, they are a third and two thirds of the way.

    Raises:
        ValueError: there is but one.
    """
    deepest = engine.layers("auto", inputs, several=True)
    if len(deepest) != 1:
        return deepest
    (last,) = deepest
    shapes: dict[str, tuple[int, ...]] = {}
    for name in (*_before(unwrapped(cast("nn.Module", engine.model)), last.partition(":")[0]), last):
        try:
            (activation,) = engine.activations((name,), inputs.shape[1:])
        except (ValueError, TypeError):  # it does not run, not once, or returns no tensor
            continue
        if activation.ndim > 2 and activation.shape[2:].numel() > 1:
            shapes[name] = tuple(activation.shape[1:])
    deepest_of = {shape: name for name, shape in shapes.items()}
    deepest_of.pop(tuple(inputs.shape[1:]), None)  # what passes the input on
    found = [name for name in shapes if name in deepest_of.values()][-_SCALES:]
    if len(found) < 2:
        alike = [name for name in shapes if shapes[name] == shapes[last]]
        found = list(dict.fromkeys(alike[-1 - part * len(alike) // _SCALES] for part in reversed(range(_SCALES))))
    if len(found) < 2:
        raise ValueError(f'`layer` "auto" found no map but that of {last!r}; give a list of at least two layers')
    return tuple(found)


def _before(model: nn.Module, path: str) -> Iterator[str]:
    """Paths of what stands before a module beside it, and before each block that it is in; outermost first."""
    parent, _, own = path.rpartition(".")
    if parent:
        yield from _before(model, parent)
    for child, _ in model.get_submodule(parent).named_children():
        if child == own:
            return
        yield f"{parent}.{child}" if parent else child

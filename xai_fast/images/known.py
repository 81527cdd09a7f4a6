"""What is known about a model beyond its weights: how a photo becomes its input, and what its outputs are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from .preprocess import Preprocess

# `Preprocess` and class names never refer to a model, so an entry dies with the model that is its key.
_known: WeakKeyDictionary[Any, tuple[Preprocess | None, tuple[str, ...] | None]] = WeakKeyDictionary()


def register(model: Any, *, preprocess: Preprocess | None = None, classes: tuple[str, ...] | None = None) -> None:
    """Remember these for `model`, as long as it lives; a second call replaces the first.

    Args:
        model: an object that can be referred to weakly and compares by identity, as every `nn.Module` does.
        preprocess: how a photo becomes the model's input; None where that is not known.
        classes: the names of its outputs, in order; None where they have none.
    """
    _known[model] = (preprocess, classes)


def known(model: Any) -> tuple[Preprocess | None, tuple[str, ...] | None]:
    """What was registered for this very object: (preprocess, classes); (None, None) for a stranger."""
    try:
        return _known.get(model, (None, None))
    except TypeError:  # unhashable, or without weak references: nothing can have been registered for it
        return (None, None)

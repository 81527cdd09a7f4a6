"""Convolutions and linear layers of one weight are one object, and what is packed of the weight is packed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from torch import Tensor

from .public import Bottleneck, Convolution, Linear

_Source = TypeVar("_Source", Convolution, Linear, Bottleneck)
# By the identities of weight and bias, which an object that is alive keeps alive, and by whatever else makes it.
_LIVE: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


def shared(
    weight: Tensor, bias: Tensor | None, rest: tuple[Hashable, ...], make: Callable[[], _Source | None]
) -> _Source | None:
    """What `make` makes of a weight, or made of it before, as long as somebody uses that.

    Args:
        weight: never written into again.
        bias: likewise.
        rest: what else it depends on.
        make: makes it; None where the implementation has none.
    """
    key = (id(weight), id(bias), *rest)
    found = _LIVE.get(key)
    if found is None and (found := make()) is not None:
        _LIVE[key] = found
    return found


def living() -> Iterator[Convolution | Linear | Bottleneck]:
    """Everything that is in use: for measuring what is packed."""
    yield from list(_LIVE.values())

"""What the methods that look inside share: the layer they read, and which of its filters."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xai_fast.core.layers import Grid, Layer, Reading, channels_first, layer_names
from xai_fast.engine import Engine

Filters = int | Sequence[int] | None


def checked_layer(engine: Engine, layer: Layer) -> Layer:
    """The layer by its name, or "auto".

    Raises:
        TypeError, ValueError: there is no such layer, or several were given.
    """
    if isinstance(layer, list | tuple):
        raise ValueError("`layer` came as a list; filters are numbered within one layer, so give one")
    return layer if isinstance(layer, str) and layer == "auto" else layer_names(engine.model, layer)[0]


def checked_filters(filters: Any) -> Filters:
    """The filters as an int, a list of ints, or None for all.

    Raises:
        TypeError: they are no integers.
        ValueError: there are none, one is negative, or one comes twice.
    """
    if filters is None:
        return None
    fits = "a filter's number, a list of numbers, or None for all filters of the layer"
    try:
        entries, several = list(filters), True
    except TypeError:  # also of an array or tensor without axes
        entries, several = [filters], False
    if not entries:
        raise ValueError(f"`filters` came empty; give {fits}")
    try:
        if any(isinstance(entry, bool) for entry in entries):
            raise TypeError
        numbers = [operator.index(entry) for entry in entries]
    except TypeError:
        raise TypeError(f"`filters` came as {filters!r}; give {fits}") from None
    if min(numbers) < 0:
        raise ValueError(f"`filters` holds {min(numbers)}; filters count from 0, give {fits}")
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise ValueError(f"`filters` holds {twice[0]} more than once; give each filter once")
    return numbers if several else numbers[0]


def filters_of(
    engine: Engine, layer: Layer, grid: Grid, filters: Filters, inputs: Tensor
) -> tuple[str, Reading, list[int]]:
    """The layer's name, how it is a grid, and the filters' numbers, for inputs of this shape.

    Raises:
        ValueError: a filter that the layer does not have, or a layer whose output is no grid; nothing but one row of
            noise has run then.
    """
    (name,) = engine.layers(layer, inputs)
    (activation,) = engine.activations((name,), inputs.shape[1:])
    if grid is None and channels_first(engine.model, name):
        _refuse_beyond(filters, activation.shape[1], name)
    (reading,) = engine.readings((name,), inputs, grid, flat=True)
    count = activation.shape[reading.channel_axis(activation)]
    _refuse_beyond(filters, count, name)
    return name, reading, list(range(count)) if filters is None else _listed(filters)


def _listed(filters: int | Sequence[int]) -> list[int]:
    return [filters] if isinstance(filters, int) else list(filters)


def _refuse_beyond(filters: Filters, count: int, name: str) -> None:
    """Raises ValueError for a filter that a layer of so many does not have."""
    most = 0 if filters is None else max(_listed(filters))
    if most >= count:
        raise ValueError(
            f"`filters` {most} is not in layer {name!r}, which has {count}; give numbers from 0 to {count - 1}"
        )


def no_score(output: Any) -> Tensor:
    """A target that keeps the engine from asking for classes; what would compute them does not run."""
    raise AssertionError("a score was asked for behind the layer")

"""Hooks of ours on layers: what passes there is shown, and replaced where that is wanted."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from xai_fast.graph.address import address, refuse_absent, refuse_again

# From what a layer returns, or is given, to what goes on in its place; None: the same.
Take = Callable[[Tensor], Tensor | None]


def first_tensor(output: Any) -> Tensor:
    """The activation inside what a layer returns: the tensor itself, or the first floating one of a nest."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf
        if dataclasses.is_dataclass(leaf):
            for field in dataclasses.fields(leaf):
                try:
                    return first_tensor(getattr(leaf, field.name))
                except TypeError:
                    continue
    raise TypeError(f"`layer` returns {type(output).__name__} without a tensor; choose another layer")


def with_first(output: Any, activation: Tensor) -> Any:
    """`output` with its first floating tensor replaced."""
    return _swapped(output, first_tensor(output), activation)


def _swapped(part: Any, found: Tensor, activation: Tensor) -> Any:
    if part is found:
        return activation
    if isinstance(part, dict):
        swapped = copy.copy(part)  # keeps the kind, such as a default or the attributes beside the entries
        for key, value in part.items():
            if (new := _swapped(value, found, activation)) is not value:
                swapped[key] = new
        return swapped
    if isinstance(part, tuple | list):
        parts = [_swapped(value, found, activation) for value in part]
        if all(new is old for new, old in zip(parts, part, strict=True)):
            return part
        return type(part)(*parts) if hasattr(part, "_fields") else type(part)(parts)
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
        new = {name: _swapped(value, found, activation) for name, value in values.items()}
        return part if all(new[name] is values[name] for name in values) else dataclasses.replace(part, **new)
    return part


@contextmanager
def at_layers(module: nn.Module, takes: dict[str, Take]) -> Iterator[Callable[[], None]]:
    """Hands what passes at each layer to its `take` while the block runs one forward.

    The block is given what is to be called where that forward begins anew.

    Raises:
        ValueError: a layer runs more than once and no call is named, or not at all, or not that often.
    """
    counts = dict.fromkeys(takes, 0)
    handles = []

    def begin() -> None:
        counts.update(dict.fromkeys(takes, 0))

    try:
        for layer, take in takes.items():
            handles.append(_watch(module, layer, take, counts))
        yield begin
    finally:
        for handle in handles:
            handle.remove()
    for layer, count in counts.items():
        refuse_absent(layer, count)


def _watch(module: nn.Module, layer: str, take: Take, counts: dict[str, int]) -> Any:
    place = address(layer)

    def meant() -> bool:
        counts[layer] += 1
        if place.call is None and counts[layer] > 1:
            refuse_again(layer)
        return place.call is None or counts[layer] == place.call

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        new = take(first_tensor(output)) if meant() else None
        return None if new is None else with_first(output, new)

    def before(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        new = take(first_tensor((args, kwargs))) if meant() else None
        return None if new is None else with_first((args, kwargs), new)

    watched = module.get_submodule(place.module)
    if place.input:
        return watched.register_forward_pre_hook(before, with_kwargs=True)
    return watched.register_forward_hook(after)


def modules_of(layers: Sequence[str] | frozenset[str]) -> frozenset[str]:
    """Paths of the modules that the layers' names begin with."""
    return frozenset(address(layer).module for layer in layers)

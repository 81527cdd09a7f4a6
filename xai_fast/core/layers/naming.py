"""Names of layers: found in the caller's model, with the call that is meant and whether what goes in is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from xai_fast.core.copies import unwrapped
from xai_fast.graph.address import Address, address, wrapper

Layer = str | nn.Module | Sequence[str | nn.Module]


def layer_names(model: Any, layer: Layer, argument: str = "layer") -> tuple[str, ...]:
    """The names of the given layers in `model`; modules are found by identity.

    Raises:
        TypeError: `model` has no layers, or an entry is neither a name nor a module.
        ValueError: there is no such layer (close matches are listed), or the model is TorchScript.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`{argument}` needs a torch.nn.Module, and the model is a plain {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"`{argument}` cannot be looked at inside TorchScript, which takes no hooks; give the Python module that "
            "was scripted or traced, or choose a method that looks at no layer"
        )
    several = isinstance(layer, Sequence) and not isinstance(layer, str | nn.Module)
    entries: list[Any] = list(layer) if several else [layer]  # type: ignore[arg-type]
    if not entries:
        raise ValueError(f"`{argument}` came as an empty list; give at least one layer")
    inside, prefix = unwrapped(model), ""
    while model is not inside:  # names may also begin at a wrapper
        prefix, model = f"{prefix}{wrapper(model)}.", model.get_submodule(wrapper(model) or "")
    entries = [entry.removeprefix(prefix) if isinstance(entry, str) else entry for entry in entries]
    names = {name: module for name, module in inside.named_modules() if name}
    return tuple(_one_name(names, entry, argument) for entry in entries)


def _one_name(names: dict[str, nn.Module], entry: Any, argument: str) -> str:
    if isinstance(entry, nn.Module):
        for name, module in names.items():
            if module is entry:
                return name
        raise ValueError(f"`{argument}` {type(entry).__name__} is not a part of this model; give one of its modules")
    if not isinstance(entry, str):
        raise TypeError(f"`{argument}` came as {type(entry).__name__}; give a layer's name or the module itself")
    place = address(entry) if "\n" not in entry else Address(entry)
    if place.module not in names or place.call == 0:
        close = difflib.get_close_matches(place.module, names, n=4) or list(names)[-4:]
        raise ValueError(
            f"`{argument}` {entry!r} is not a layer of this model; close are {', '.join(map(repr, close))} "
            "(model.named_modules() lists all; 'relu:2' is the second call of 'relu', 'norm:input' what goes into it)"
        )
    return str(place)

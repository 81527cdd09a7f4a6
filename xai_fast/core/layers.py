"""Layers: finding the ones a caller names, choosing one when none is named, and reading token sequences as grids."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .copies import unwrapped, wrapper

Layer = str | nn.Module | Sequence[str | nn.Module]

# Their output repeats or pools what came before, so a map read there shows nothing that the layer before does not.
_PASSED_OVER = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten),
    *(getattr(nn, f"Adaptive{kind}Pool{axes}d") for kind in ("Avg", "Max") for axes in (1, 2, 3)),
)
_MOST_PREFIX_TOKENS = 8


def layer_names(model: Any, layer: Layer, argument: str = "layer") -> tuple[str, ...]:
    """The names of the given layers in `model`; modules are found by identity.

    Raises:
        TypeError: `model` has no layers, or an entry is neither a name nor a module.
        ValueError: there is no such layer; close matches are listed.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`{argument}` needs a torch.nn.Module, and the model is a plain {type(model).__name__}")
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
    if entry not in names:
        close = difflib.get_close_matches(entry, names, n=4) or list(names)[-4:]
        raise ValueError(
            f"`{argument}` {entry!r} is not a layer of this model; close are {', '.join(map(repr, close))} "
            "(model.named_modules() lists all)"
        )
    return entry


def first_tensor(output: Any) -> Tensor:
    """The activation inside what a layer returns: the tensor itself, or the first one of a tuple or dict."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf
    raise TypeError(f"`layer` returns {type(output).__name__} without a tensor; choose another layer")


def as_grid(activation: Tensor, size: Sequence[int]) -> Tensor:
    """An activation as (N, C, *s), for inputs of spatial extent `size`.

    Convolutional maps pass as they are. For images, (N, h, w, C) as in Swin is moved to (N, C, h, w), and tokens
    (N, T, C) as in ViT become the grid of the image's proportions, class and register tokens dropped.

    Raises:
        ValueError: the activation is no grid.
    """
    if _channels_come_last(activation, size):
        return activation.movedim(-1, 1)
    if activation.ndim == len(size) + 2:
        return activation
    if len(size) == 2 and activation.ndim == 3:
        grid = _token_grid(activation.shape[1], size)
        if grid is not None:
            patches = activation[:, activation.shape[1] - grid[0] * grid[1] :]
            return patches.transpose(1, 2).unflatten(2, grid)
    raise ValueError(
        f"`layer` gives {tuple(activation.shape)}, which is no grid over an input of {tuple(size)}; "
        "choose a layer whose output keeps the axes of the image"
    )


def channel_axis(activation: Tensor, size: Sequence[int]) -> int:
    """Which axis of an activation, as its layer returns it, holds the channels.

    Raises:
        ValueError: as `as_grid`.
    """
    as_grid(activation, size)
    return activation.ndim - 1 if activation.ndim != len(size) + 2 or _channels_come_last(activation, size) else 1


def _channels_come_last(activation: Tensor, size: Sequence[int]) -> bool:
    return (
        len(size) == 2
        and activation.ndim == 4
        and _alike(activation.shape[1:3], size)
        and not _alike(activation.shape[2:], size)
    )


def _alike(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a grid has the input's proportions, up to the rounding of one cell."""
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= max(size)


def _token_grid(tokens: int, size: Sequence[int]) -> tuple[int, int] | None:
    for prefix in range(_MOST_PREFIX_TOKENS + 1):
        cells = tokens - prefix
        height = round((cells * size[0] / size[1]) ** 0.5) if cells > 0 else 0
        if height and cells % height == 0 and height * size[1] == cells // height * size[0]:
            return height, cells // height
    return None


def last_spatial_layer(module: nn.Module, example: Tensor) -> str:
    """The last layer whose positions still influence the output: what `layer="auto"` means.

    In a transformer that reads a class token, that is the last block's input norm, because the patches of its output
    reach nothing. Costs one forward and one backward of one row.

    Args:
        module: our own copy.
        example: one row, in the copy's dtype.

    Raises:
        ValueError: no layer keeps the axes of the input.
    """
    leaf = example.detach().clone().requires_grad_()
    with torch.enable_grad(), _recorded(module) as outputs:
        raw = module(leaf * 1)  # a model may write into its input, which must not be a leaf then
        score = sum(
            part.float().square().sum() for part in tree_leaves(raw) if isinstance(part, Tensor) and part.requires_grad
        )
    candidates = _candidates(outputs, example.shape[2:])
    if not candidates:
        raise ValueError('`layer` "auto" found no layer that keeps the axes of the image; name one')
    if isinstance(score, Tensor):
        for name, activation in reversed(candidates):
            (gradient,) = torch.autograd.grad(score, activation, retain_graph=True, allow_unused=True)
            if gradient is not None and int(as_grid(gradient, example.shape[2:]).ne(0).any(1).sum()) > 1:
                return name
    return candidates[-1][0]


@torch.no_grad()
def layer_activations(module: nn.Module, layers: Sequence[str], row: Tensor) -> list[Tensor]:
    """What the named layers return for one row (1, C, *S), in the model's dtype.

    Raises:
        ValueError: a layer runs more than once, or not at all.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def record(name: str) -> Any:
        return lambda _layer, _args, output: found[name].append(first_tensor(output).clone())

    handles = [module.get_submodule(name).register_forward_hook(record(name)) for name in layers]
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), row.dtype)
    try:
        module(row.to(dtype))
    finally:
        for handle in handles:
            handle.remove()
    for name, activations in found.items():
        if len(activations) != 1:
            times = "more than once" if activations else "never"
            raise ValueError(f"`layer` {name!r} runs {times} in a forward; choose a layer that runs once")
    return [activations[0] for activations in found.values()]


@contextmanager
def _recorded(module: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor]]]:
    """Collects (name, layer, activation) in order of completion."""
    outputs: list[tuple[str, nn.Module, Tensor]] = []

    def recorder(name: str) -> Any:
        def record(layer: nn.Module, _args: Any, output: Any) -> None:
            tensors = [part for part in tree_leaves(output) if isinstance(part, Tensor)]
            if tensors and tensors[0].requires_grad:
                outputs.append((name, layer, tensors[0]))

        return record

    handles = [layer.register_forward_hook(recorder(name)) for name, layer in module.named_modules() if name]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _candidates(outputs: list[tuple[str, nn.Module, Tensor]], size: Sequence[int]) -> list[tuple[str, Tensor]]:
    grids = []
    for name, layer, activation in outputs:
        try:
            grid = as_grid(activation, size)
        except ValueError:
            continue
        if not isinstance(layer, _PASSED_OVER) and min(grid.shape[2:]) > 1:
            grids.append((name, activation))
    if grids and grids[-1][1].ndim == 3 and len(size) == 2:
        # Inside attention the tokens are wider (queries, keys and values side by side); the stream has one width.
        width = grids[-1][1].shape[-1]
        grids = [(name, activation) for name, activation in grids if activation.shape[-1] == width]
    return grids

"""The reading of each named layer: what the caller says about it, or how its positions answer to the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from xai_fast.core.copies import unwrapped
from xai_fast.graph.address import address

from .answering import CHANNELS_FIRST, contradicts, coordinates, reading_by_kind, reading_of
from .calls import Recorded, Seen
from .corners import Corners
from .grids import Axes, Flat, Function, Grid, Reading, Tokens, candidates
from .places import Take, at_layers, first_tensor


def readings_of(
    module: nn.Module, layers: Sequence[str], example: Tensor, grid: Grid = None, *, flat: bool = False, rows: int = 1
) -> tuple[dict[str, Reading], Recorded | None]:
    """How what each layer returns is read as a grid over the input, and the forward in which that was seen.

    Runs one row where the operators behind a layer tell; 1 + 1 per spatial axis more where corners of the input tell;
    else 1 + 4 per axis on noise, and as many around the example where noise wakes nothing.

    Args:
        module: ours.
        layers: their names.
        example: one input (1, C, *S), in the module's dtype, on its device.
        grid: what the caller says.
        flat: whether a layer without positions, (N, C), is read as one cell.
        rows: N, for messages.

    Raises:
        ValueError: a layer is no grid, or which axes or tokens are one stays open; says what to give.
    """
    if callable(grid):
        return dict.fromkeys(layers, Function(grid, example.ndim - 2)), None
    look = _Look(module, layers, example, grid, flat=flat, rows=rows)
    found: dict[str, Reading] = {}
    for ask in (
        look.known,
        look.told,
        look.plainly,
        partial(look.answering, around=False),
        partial(look.answering, around=True),
        look.coarse,
        partial(_as_given, module, example, grid),
        look.certain,
    ):
        if rest := [layer for layer in layers if layer not in found]:
            found |= {layer: reading for layer, reading in ask(rest).items() if reading is not None}
    return {layer: found[layer] for layer in layers}, look.record


_SMALL = 1 << 20  # elements of an input, below which all that autograd keeps of a forward fits in memory


class _Look:
    """Ways to read layers, cheap ones first; arguments as of `readings_of`."""

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        example: Tensor,
        grid: tuple[int, ...] | None,
        *,
        flat: bool,
        rows: int,
    ) -> None:
        self._module, self._example, self._grid, self._flat, self._rows = module, example, grid, flat, rows
        self._axes = example.ndim - 2
        self._centres: dict[str, list[Tensor]] = {}  # where elements of layers answer, as far as was measured
        self.record, self._calls = None, dict[str, Seen]()
        if example.numel() <= _SMALL:
            self.record = Recorded(module, example, None)
            self._calls = {one.name: one for one in self.record.seen if one.name in layers and one.intact}
        if len(self._calls) == len(layers):
            self._clean = {layer: one.activation for layer, one in self._calls.items()}
            self._plain = _plain_shapes(module, self.record)
        else:
            self._clean, self._plain = _looked_at(module, layers, example)
        self._shapes = {layer: tuple(one.shape[1:]) for layer, one in self._clean.items()}

    def known(self, rest: Sequence[str]) -> dict[str, Reading | None]:
        return {layer: _known(self._shapes[layer], self._axes, self._grid, flat=self._flat) for layer in rest}

    def told(self, rest: Sequence[str]) -> Mapping[str, Reading | None]:
        record, calls = self.record, self._calls
        found = {} if record is None else {layer: record.reading(calls[layer]) for layer in rest if layer in calls}
        return {layer: reading for layer, reading in found.items() if self._fits(layer, reading)}

    def _fits(self, layer: str, reading: Reading | None) -> bool:
        """Whether a grid has the extents that the caller gives."""
        return reading is not None and self._grid in (None, tuple(reading(self._clean[layer]).shape[2:]))

    def plainly(self, rest: Sequence[str]) -> Mapping[str, Reading | None]:
        maps = {layer: self._clean[layer] for layer in rest if self._clean[layer].ndim > 2}
        corners = Corners(self._module, maps, self._example, self._grid, self._plain)
        return {layer: reading for layer in maps if (reading := corners.read(layer)) is not None}

    def answering(self, rest: Sequence[str], *, around: bool) -> dict[str, Reading | None]:
        found = coordinates(self._module, rest, self._example, around=around)
        for layer, centres in found.items():
            self._centres.setdefault(layer, []).append(centres)
        return {layer: reading_of(centres, self._grid) for layer, centres in found.items()}

    def coarse(self, rest: Sequence[str]) -> dict[str, Reading | None]:
        shapes, plain, grid, size = self._shapes, self._plain, self._grid, self._example.shape[2:]
        found = {
            layer: reading_by_kind(shapes[layer], plain, size, grid) or _silent(shapes[layer], plain, self._axes, grid)
            for layer in rest
        }
        return {layer: reading for layer, reading in found.items() if not self._turned(layer, reading)}

    def certain(self, rest: Sequence[str]) -> dict[str, Reading | None]:
        found = {layer: self._by_its_module(layer) for layer in rest}
        for layer, reading in found.items():
            if reading is None or self._turned(layer, reading):
                _refuse(layer, (self._rows, *self._shapes[layer]), tuple(self._example.shape[2:]), self._grid)
        return found

    def _turned(self, layer: str, reading: Reading | None) -> bool:
        """Whether positions plainly answer, and elsewhere than under a reading."""
        if not isinstance(reading, Axes):
            return False
        return any(contradicts(centres.movedim(reading.channels, 1)) for centres in self._centres.get(layer, ()))

    def _by_its_module(self, layer: str) -> Reading | None:
        """The reading of a layer whose positions answer to nothing, where its kind says it."""
        shape = self._shapes[layer]
        first = channels_first(self._module, layer) and len(shape) == self._axes + 1
        return Axes(1) if first and self._grid in (None, shape[1:]) else None


def layer_activations(module: nn.Module, layers: Sequence[str], row: Tensor) -> dict[str, Tensor]:
    """What the named layers return, or are given, for one row (1, C, *S) in the model's dtype; without contents.

    Raises:
        ValueError: a layer runs more than once and no call is named, or not at all.
    """
    found, _ = _looked_at(module, layers, row)
    return {layer: activation.to("meta") for layer, activation in found.items()}


def _plain_shapes(module: nn.Module, record: Recorded | None) -> set[tuple[int, ...]]:
    """What rows are like behind convolutions and their kin."""
    kinds = {path for path, part in module.named_modules() if isinstance(part, CHANNELS_FIRST)}
    return set() if record is None else {tuple(one.shape[1:]) for one in record.seen if one.path in kinds}


@torch.no_grad()
def _looked_at(module: nn.Module, layers: Sequence[str], row: Tensor) -> tuple[dict[str, Tensor], set[tuple[int, ...]]]:
    """What the named layers return for one row, and what rows are like behind convolutions and their kin."""
    found: dict[str, Tensor] = {}
    shapes: set[tuple[int, ...]] = set()

    def taker(layer: str) -> Take:
        return lambda activation: found.update({layer: activation.detach().clone()})

    handles = [
        part.register_forward_hook(lambda _part, _args, output: shapes.add(tuple(first_tensor(output).shape[1:])))
        for part in module.modules() if isinstance(part, CHANNELS_FIRST)
    ]  # fmt: skip
    try:
        with at_layers(module, {layer: taker(layer) for layer in layers}):
            module(row.clone())
    finally:
        for handle in handles:
            handle.remove()
    return found, shapes


def _silent(
    shape: tuple[int, ...], plain: set[tuple[int, ...]], axes: int, grid: tuple[int, ...] | None
) -> Reading | None:
    """What is zero or NaN throughout answers to nothing; beside a convolution of its shape it is a map like that."""
    fits = grid in (None, shape[1:]) and len(shape) == axes + 1
    return Axes(1) if fits and shape in plain and len(set(shape)) > 1 else None


def _as_given(
    module: nn.Module, example: Tensor, grid: tuple[int, ...] | None, rest: Sequence[str]
) -> dict[str, Reading | None]:
    """How silent activations lie, told from what they are given."""
    sources = {f"{layer}:input": layer for layer in rest if _rectifies(module, layer)}
    found = coordinates(module, tuple(sources), example) if sources else {}
    return {sources[source]: reading_of(centres, grid) for source, centres in found.items()}


def _rectifies(module: nn.Module, layer: str) -> bool:
    """Whether a layer is an activation, which may be silent, and lies as what it is given."""
    place = address(layer)
    kind = type(unwrapped(module).get_submodule(place.module))
    return kind.__module__ == nn.ReLU.__module__ and kind is not nn.MultiheadAttention and not place.input


def channels_first(module: Any, layer: str) -> bool:
    """Whether a layer's channels are on axis 1 by what its module computes."""
    place = address(layer)
    return isinstance(unwrapped(module).get_submodule(place.module), CHANNELS_FIRST) and not place.input


def _known(shape: tuple[int, ...], axes: int, grid: tuple[int, ...] | None, *, flat: bool) -> Reading | None:
    """The reading, where the shape leaves only one."""
    if flat and len(shape) == 1:
        return Flat(axes)
    if len(shape) == axes + 1 and set(shape[1:]) == {1}:
        return Axes(1)
    if grid is None:
        return None
    if len(fitting := candidates(shape, axes, grid)) == 1:
        return fitting[0]
    return Tokens(0, grid) if len(shape) == 2 < axes + 1 and prod(grid) == shape[0] and len(grid) == axes else None


def _refuse(layer: str, came: tuple[int, ...], size: tuple[int, ...], grid: tuple[int, ...] | None) -> NoReturn:
    fits = "h, w" if len(size) == 2 else ", ".join("s" * len(size))
    if grid is not None:
        raise ValueError(
            f"`grid` {grid} is not to be found in {came}, which `layer` {layer!r} gives: its "
            f"positions do not answer to an input of {size} like this; give a function from it to (N, C, {fits})"
        )
    raise ValueError(
        f"`layer` gives {came}, which is no grid over an input of {size}, as far as {layer!r} answers "
        "to changes of the input; choose a layer whose output keeps the axes of the input, or say how it is read: "
        f"`grid=({fits})`, or `grid` a function from the activation to (N, C, {fits})"
    )

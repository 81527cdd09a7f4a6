"""What is known of a model's layers: which one "auto" means, what each returns, and how that is a grid; found once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from xai_fast.core.borrowed import WritesWeightsError, read_only
from xai_fast.core.copies import copied, traits, unwrapped
from xai_fast.core.guard import own_model
from xai_fast.core.hooks import shadowed
from xai_fast.core.layers import (
    Function,
    Grid,
    Reading,
    Recorded,
    TokenPlaces,
    blocks_of,
    choose_layers,
    layer_activations,
    readings_of,
    token_places,
)
from xai_fast.graph.deadline import limited

from .asked import Asked, current

Readings = tuple[Reading, ...]
Found = TypeVar("Found")


@dataclass
class Looked:
    """What was found, kept as long as the model is the same.

    Attributes:
        chosen: names that "auto" means, by input shape and kind of target.
        readings: by layer, input shape and what the caller said of the grid.
        activations: tensors (1, ...) without contents, by layer and input shape.
        tokens: where they lie, by input shape, kind of target and what the caller said of the grid.
        blocks: names of a transformer's, by input shape.
    """

    chosen: dict[Any, tuple[str, ...]] = field(default_factory=dict)
    readings: dict[Any, Reading] = field(default_factory=dict)
    activations: dict[Any, Tensor] = field(default_factory=dict)
    tokens: dict[Any, TokenPlaces] = field(default_factory=dict)
    blocks: dict[Any, tuple[str, ...]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forgets all of it."""
        for facts in (self.chosen, self.readings, self.activations, self.tokens, self.blocks):
            facts.clear()

    def saw(self, layers: Sequence[str], shape: Sequence[int], activations: Sequence[Tensor]) -> None:
        """Remembers what layers return for an input of shape (C, *S)."""
        for layer, activation in zip(layers, activations, strict=True):
            self.activations[layer, *shape] = activation[:1].to("meta")


@dataclass(frozen=True)
class Looking:
    """Looks at a model's layers, while it is the caller's turn, and remembers what it sees.

    Attributes:
        model: the caller's; a copy of it runs, without hooks, or its own object under guard.
        looked: what is known.
        output: from the raw output to class scores; None: found.
        ran: takes forwards of copies that borrow its weights, which may be the answer to the call at hand.
    """

    model: Any
    looked: Looked
    output: Callable[[Any], Tensor] | None
    ran: list[Recorded]

    def chosen(self, inputs: Tensor, *, several: bool = False) -> tuple[str, ...]:
        """Names of what "auto" means: the deepest layer whose positions answer to the input's.

        Args:
            inputs: (N, C, *S).
            several: whether it may be several maps, where a detector reads them all; the finest one otherwise.

        Raises:
            ValueError: as `xai_fast.core.layers.choose_layers`.
        """
        shape, asked = tuple(inputs.shape[1:]), current() or Asked(self.output)
        key = (shape, asked.kind)
        if key not in self.looked.chosen:
            with limited():
                choice = self._aside(
                    lambda module, ours: choose_layers(
                        module, self._example(inputs), asked.score, ours=ours, boxes=asked.boxes is not None
                    )
                )
            self._keep(choice.record)
            self.looked.chosen[key] = choice.layers
            for name, reading in zip(choice.layers, choice.readings, strict=True):
                self.looked.readings[name, shape, None] = reading
        return self.looked.chosen[key] if several else self.looked.chosen[key][:1]

    def readings(self, layers: Sequence[str], inputs: Tensor, grid: Grid = None, *, flat: bool = False) -> Readings:
        """How what each layer returns is a grid over inputs like these: as the caller says, or as its positions answer.

        Args:
            layers: their names.
            inputs: (N, C, *S).
            grid: the caller's extents or function.
            flat: whether a layer without positions is read as one cell.

        Raises:
            ValueError: as `xai_fast.core.layers.readings_of`.
        """
        if callable(grid):
            return tuple(Function(grid, inputs.ndim - 2) for _ in layers)
        shape, known = tuple(inputs.shape[1:]), self.looked.readings
        if unknown := [layer for layer in layers if (layer, shape, grid) not in known]:
            found, record = self._aside(
                lambda module, _: readings_of(module, unknown, self._example(inputs), grid, flat=flat, rows=len(inputs))
            )
            self._keep(record)
            known.update({(layer, shape, grid): reading for layer, reading in found.items()})
        return tuple(known[layer, shape, grid] for layer in layers)

    def _keep(self, record: Recorded | None) -> None:
        """Keeps a forward of a copy, which may be the answer to the call at hand."""
        if record is not None and record.module is not unwrapped(self.model):
            self.ran.append(record)

    def activations(self, layers: Sequence[str], shape: Sequence[int]) -> tuple[Tensor, ...]:
        """Tensors (1, ...) without contents, as the layers return them for one input of shape (C, *S).

        Runs the model once on noise, unless a call has shown it for this shape.
        """
        if any((layer, *shape) not in self.looked.activations for layer in layers):
            noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
            found = self._aside(lambda module, _: layer_activations(module, layers, self._example(noise)))
            self.looked.saw(layers, shape, [found[layer] for layer in layers])
        return tuple(self.looked.activations[layer, *shape] for layer in layers)

    def tokens(self, inputs: Tensor, grid: tuple[int, ...] | None) -> TokenPlaces:
        """Where the tokens that attend to each other lie over inputs like these, and which the score is read from.

        Raises:
            ValueError: as `xai_fast.core.layers.token_places`.
        """
        shape, asked = tuple(inputs.shape[1:]), current() or Asked(self.output)
        key = (shape, asked.kind, grid)
        if key not in self.looked.tokens:
            if not isinstance(self.model, nn.Module):
                raise ValueError("`model` came as a plain callable, whose layers are not known; give the module itself")
            example = self._example(inputs)
            self.looked.tokens[key] = self._aside(
                lambda module, ours: token_places(module, example, asked.score, grid, ours=ours)
            )
        return self.looked.tokens[key]

    def blocks(self, inputs: Tensor) -> tuple[str, ...]:
        """Names of the modules that run one after the other, each with one attention among all tokens.

        Raises:
            ValueError: as `xai_fast.core.layers.blocks_of`.
        """
        shape = tuple(inputs.shape[1:])
        if shape not in self.looked.blocks:
            example = self._example(inputs)
            self.looked.blocks[shape] = self._aside(lambda module, _: blocks_of(module, example))
        return self.looked.blocks[shape]

    def _aside(self, look: Callable[[nn.Module, bool], Found]) -> Found:
        """What `look` finds in the model, and is told whether it is a copy: for runs that the user did not ask for."""
        assert isinstance(self.model, nn.Module)
        # No gradient goes through weights that were made under inference mode; copies of them are as any others.
        lendable = not any(weight.is_inference() for weight in self.model.parameters())
        for borrowing in (True, False) if lendable else (False,):
            try:
                module = copied(self.model, borrowing=borrowing)
            except Exception:  # as in `prepare`: anything may refuse to be copied
                break
            with (
                suppress(WritesWeightsError),  # then on a copy with weights of its own
                shadowed(module),
                read_only(module) if borrowing else nullcontext(),
            ):
                return look(module, True)
        module = unwrapped(self.model)
        with own_model(module):
            return look(module, False)

    def _example(self, inputs: Tensor) -> Tensor:
        """The first input on the model's device and in its dtype."""
        return adopted(self.model, inputs[:1]).to(traits(self.model)[0] or inputs.dtype)


def adopted(model: Any, inputs: Tensor) -> Tensor:
    """The inputs on the model's device, detached."""
    tensors = model.parameters() if isinstance(model, nn.Module) else ()
    device = next((tensor.device for tensor in tensors), inputs.device)
    return inputs.detach().to(device)

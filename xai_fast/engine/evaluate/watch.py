"""What layers return while the model's own forward runs, collected by hooks of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from xai_fast.core.layers.places import Take, at_layers, first_tensor, with_first
from xai_fast.core.prepared import Prepared
from xai_fast.graph.address import address
from xai_fast.graph.captured import own_forwards

from .answers import Response


class Caught(dict[str, Tensor]):
    """What layers have returned, by their names.

    Attributes:
        begin: to be called where the forward begins anew.
    """

    begin: Callable[[], None]


def by_own_forward(prepared: Prepared) -> AbstractContextManager[None]:
    """Every module of the model runs its own forward inside, so that hooks on layers fire."""
    return own_forwards(prepared.module) if isinstance(prepared.module, nn.Module) else nullcontext()


def in_order(captured: dict[str, Tensor], layers: tuple[str, ...]) -> list[Tensor]:
    """What `watched` has caught, one tensor per layer.

    Raises:
        ValueError: a layer did not run.
    """
    missing = [name for name in layers if name not in captured]
    if missing:
        raise ValueError(f"`layer` {missing[0]!r} does not run in this model's forward; choose another")
    return [captured[name] for name in layers]


def per_row(responses: list[Response], layers: tuple[str, ...], rows: int) -> tuple[Response, ...]:
    """The responses, if each layer returns one entry per row."""
    for response, layer in zip(responses, layers, strict=True):
        if response.activation.ndim == 0 or len(response.activation) != rows:
            shape = tuple(response.activation.shape)
            raise ValueError(f"`layer` {layer!r} returns {shape} for {rows} inputs, not one entry each; choose another")
    return tuple(responses)


@contextmanager
def watched(prepared: Prepared, layers: tuple[str, ...], *, detach: bool = False) -> Iterator[Caught]:
    """Collects the layers' activations as they run; the first one cuts the graph, so that the prefix keeps none."""
    captured = Caught()

    def taker(name: str) -> Take:
        def take(activation: Tensor) -> Tensor:
            if not activation.requires_grad and not detach:
                activation = activation.detach().requires_grad_()
            captured[name] = activation
            # What follows may write into it in place, so it goes on with a copy.
            return activation.clone()

        return take

    assert isinstance(prepared.module, nn.Module)
    module, before = prepared.module, [] if detach else _opened(prepared.module, layers)
    try:
        with at_layers(module, {name: taker(name) for name in layers}) as captured.begin:
            yield captured
    finally:
        for handle in before:
            handle.remove()


def _opened(module: nn.Module, layers: tuple[str, ...]) -> list[RemovableHandle]:
    """Lets the user's hooks on layers see what requires a gradient: they may hook that tensor and change what comes."""

    def open(_layer: nn.Module, _args: Any, output: Any) -> Any:
        activation = first_tensor(output)
        if activation.requires_grad or not torch.is_grad_enabled():
            return None
        # A hook may write into it, which autograd forbids on a leaf.
        return with_first(output, activation.detach().requires_grad_().clone())

    places = [address(layer) for layer in layers]
    found = [module.get_submodule(place.module) for place in places if not place.input]
    return [layer.register_forward_hook(open, prepend=True) for layer in found if layer._forward_hooks]

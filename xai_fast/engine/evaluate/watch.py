"""What layers return while the model's own forward runs, collected by hooks of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn

from xai_fast.core.layers.places import Take, at_layers
from xai_fast.core.prepared import Prepared
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
    with at_layers(prepared.module, {name: taker(name) for name in layers}) as captured.begin:
        yield captured

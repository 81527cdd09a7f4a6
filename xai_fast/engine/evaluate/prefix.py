"""Channels of a layer, and the gradient of their sums by the input; nothing behind the layer runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor, nn

from xai_fast.core import autograd
from xai_fast.core.indices import beside
from xai_fast.core.layers import Reading, at_layers
from xai_fast.core.prepared import Prepared
from xai_fast.engine.reach import reaches, refuse_unreached

from .answers import Answers, Response, ScoreOf, Tails
from .watch import by_own_forward, per_row


@dataclass(frozen=True, eq=False)
class ChannelMaps:
    """What some channels of a layer are at each of its positions.

    Attributes:
        layer: its name.
        channels: LongTensor (F,), numbers of the channels on the layer's grid.
        reading: how what it returns is that grid.
    """

    layer: str
    channels: Tensor
    reading: Reading
    forwards: int = field(default=1, init=False)
    backwards: int = field(default=0, init=False)
    together: int = field(default=1, init=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The one."""
        return (self.layer,)

    @torch.no_grad()
    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """A response with the maps (rows, F, *s), in float32 or wider; for scores (rows, 1) the sum of all of them.

        The model's own scores are not known, because what computes them does not run.
        """
        tail = tails.get(self.layers)
        if tail is not None:
            activation = tail.keep(batch).activation
        else:
            with by_own_forward(prepared):
                activation = _reached(prepared, self.layer, batch)
        chosen = self.reading(activation)[:, beside(self.channels, activation)]
        maps = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        return Answers(maps.flatten(1).sum(1, keepdim=True), responses=(Response(maps),))


@dataclass(frozen=True, eq=False)
class ChannelSum:
    """How strongly each row drives a channel of its own: the sum over a layer's positions, and its gradient.

    Attributes:
        layer: its name.
        channels: LongTensor (R,), the channel of each of all rows.
        reading: how what the layer returns is a grid.
        backwards: 1 for the gradient by the input, 0 without.
    """

    layer: str
    channels: Tensor
    reading: Reading
    backwards: int = 1
    forwards: int = field(default=1, init=False)
    together: int = field(default=1, init=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The one."""
        return (self.layer,)

    def __call__(self, prepared: Prepared, batch: Tensor, score_of: ScoreOf, tails: Tails, rows: Tensor) -> Answers:
        """Sums (rows, 1) in float32 or wider, and their gradients (rows, 1, C, *S)."""
        with torch.set_grad_enabled(self.backwards > 0), by_own_forward(prepared):
            batch.requires_grad_(self.backwards > 0)
            # The copy is for models that write into their input, which autograd forbids on a leaf.
            grid = self.reading(_reached(prepared, self.layer, batch.clone()))
            number = torch.arange(len(rows), device=grid.device)
            own = grid[number, beside(self.channels, rows)[rows].to(grid.device)].flatten(1)
            sums = own.sum(1, dtype=torch.promote_types(own.dtype, torch.float32))
        if not self.backwards:
            return Answers(sums[:, None])
        if not sums.requires_grad:
            refuse_unreached(f"the input from layer {self.layer!r}")
        (gradient,) = autograd.grad(sums.sum(), batch, allow_unused=True)
        if gradient is None or not reaches(gradient, sums, batch):
            refuse_unreached(f"the input from layer {self.layer!r}")
        return Answers(sums.detach()[:, None], gradient[:, None])


class _Reached(BaseException):
    """Ends a forward at a layer. No Exception, so that no forward mistakes it for one that it expects."""


def _reached(prepared: Prepared, layer: str, batch: Tensor) -> Tensor:
    """What the layer returns, by a forward that ends there."""
    found: list[Tensor] = []

    def stop(activation: Tensor) -> NoReturn:
        found.append(activation)
        raise _Reached

    assert isinstance(prepared.module, nn.Module)
    try:
        with at_layers(prepared.module, {layer: stop}):
            prepared.module(batch)
    except _Reached:
        per_row([Response(found[0])], (layer,), len(batch))
    return found[0]  # or the block has refused a layer that does not run

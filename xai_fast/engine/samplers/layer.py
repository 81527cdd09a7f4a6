"""Changes of a layer's output: one channel silenced, or everything but the surroundings of one position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xai_fast.core.layers import Reading


class LayerChange(Protocol):
    """V variants of a layer's output for one input, described and written on demand."""

    def count(self, activation: Tensor, reading: Reading) -> int:
        """V, for an activation (rows, ...) that is read as a grid by `reading`."""
        ...

    def write(self, numbers: Tensor, out: Tensor, reading: Reading) -> None:
        """Makes `out` (rows, ...), which holds the activation of one input in every row, the variants `numbers`."""
        ...

    def silenced(self, numbers: Tensor, activation: Tensor, reading: Reading) -> Tensor | None:
        """The channels on axis 1 that the variants set to zero, if one channel each is all they change."""
        ...


@dataclass(frozen=True)
class SilencedChannels:
    """Variant k: channel k is zero at every position, in a transformer in every token."""

    def count(self, activation: Tensor, reading: Reading) -> int:
        """One per channel."""
        return activation.shape[reading.channel_axis(activation)]

    def write(self, numbers: Tensor, out: Tensor, reading: Reading) -> None:
        """Sets one channel of each row to zero."""
        channels = out.movedim(reading.channel_axis(out), 1)
        channels[torch.arange(len(numbers), device=out.device), numbers.to(out.device)] = 0

    def silenced(self, numbers: Tensor, activation: Tensor, reading: Reading) -> Tensor | None:
        """The channels themselves, where they lie on axis 1."""
        return numbers if reading.channel_axis(activation) == 1 else None


@dataclass(frozen=True)
class RevealedPositions:
    """Variant p: what is away from position p is zero; the last variant is zero everywhere.

    Class and register tokens of a transformer stay as they are.

    Attributes:
        gaussian: neighbours of p stay visible, weighted by (1/4, 1/2, 1/4) along every axis, cut at the border.
    """

    gaussian: bool

    def count(self, activation: Tensor, reading: Reading) -> int:
        """One per position, and one more."""
        return reading(activation).shape[2:].numel() + 1

    def write(self, numbers: Tensor, out: Tensor, reading: Reading) -> None:
        """Multiplies each row by its mask."""
        reading.scale(out, self._masks(numbers, reading(out).shape[2:]).to(out))

    def silenced(self, numbers: Tensor, activation: Tensor, reading: Reading) -> Tensor | None:
        """Not what this changes."""
        return None

    def _masks(self, numbers: Tensor, shape: torch.Size) -> Tensor:
        """(rows, *shape)."""
        masks = torch.ones(len(numbers), *shape, device=numbers.device)
        inside = numbers.clamp(max=shape.numel() - 1)
        for axis in range(len(shape)):
            position = inside // shape[axis + 1 :].numel() % shape[axis]
            away = (torch.arange(shape[axis], device=numbers.device) - position[:, None]).abs()
            weight = (2.0 - away).clamp_min(0) / 4 if self.gaussian else (away == 0).float()
            masks *= weight.view(len(numbers), *[-1 if a == axis else 1 for a in range(len(shape))])
        last = (numbers >= shape.numel()).view(-1, *[1] * len(shape))
        return masks.masked_fill_(last, 0)

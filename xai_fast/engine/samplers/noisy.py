"""Noise: each input several times, each time with other Gaussian noise that its number alone decides."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.ops import add_noise

# Draws made for a noisy sample are numbered from here on, so that they are not those of the noise itself.
NESTED = 1 << 31


@dataclass(frozen=True, eq=False)
class Noisy:
    """Row r is input r // n with the noise of draw r % n.

    Args:
        inputs: (N, C, *S), on the device of the model.
        sigma: (N,), the noise's standard deviation; in units of the input times `unit`.
        n_samples: n, draws per input.
        seed: of all draws.
        ids: LongTensor (N,), by which the draws of each input are keyed.
        antithetic: every second draw is the one before it with the other sign.
        unit: (C,) by which channels are multiplied before noise of one sigma is added to all; None where they have
            one unit.
        draws: (n, C, *S) or (N, n, C, *S), the noise itself in place of drawn standard normal numbers; None draws.
    """

    inputs: Tensor
    sigma: Tensor
    n_samples: int
    seed: int
    ids: Tensor
    antithetic: bool = False
    unit: Tensor | None = None
    draws: Tensor | None = None
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return len(self.inputs) * self.n_samples

    def sample_of(self, rows: Tensor) -> Tensor:
        """The draws of one input follow each other."""
        return rows // self.n_samples

    def keys(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """By which further draws are keyed that are made for the rows: the input's id, and the first draw's number."""
        return beside(self.ids, rows)[self.sample_of(rows)], NESTED + rows % self.n_samples

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the inputs with their noise."""
        sample, draw = self.sample_of(rows), rows % self.n_samples
        scale = beside(self.sigma, rows)[sample].double()
        if self.antithetic:
            scale = torch.where(draw % 2 == 0, scale, -scale)
            draw = draw // 2
        if self.draws is not None:
            self._write_given(sample, draw, scale, out)
            return
        add_noise(self._scaled, scale, sample, beside(self.ids, rows)[sample], draw, self.seed, out)
        if self.unit is not None:
            out.div_(self._per_channel.to(out.dtype))

    @functools.cached_property
    def _scaled(self) -> Tensor:
        """The inputs in the units of the noise."""
        return self.inputs if self.unit is None else self.inputs * self._per_channel

    @functools.cached_property
    def _per_channel(self) -> Tensor:
        assert self.unit is not None
        return self.unit.to(self.inputs).view(-1, *[1] * (self.inputs.ndim - 2))

    @functools.cached_property
    def _given(self) -> Tensor:
        """The given draws where rows are written: for this call alone, as they may be large."""
        assert self.draws is not None
        return self.draws.to(self.inputs.device)

    def _write_given(self, sample: Tensor, draw: Tensor, scale: Tensor, out: Tensor) -> None:
        several, draws = self._given.ndim == self.inputs.ndim + 1, self._given
        noise = (draws[sample, draw] if several else draws[draw]).to(self.inputs)
        scale = scale.to(self.inputs).view(-1, *[1] * (self.inputs.ndim - 1))
        out.copy_(self.inputs[sample.to(self.inputs.device)] + scale * noise)

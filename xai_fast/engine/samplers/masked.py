"""Inputs seen through the maps of a layer's channels, each brought to [0, 1]; none of the masks is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.indices import beside, known
from xai_fast.ops import add_noise, blend_maps

from .passes import Passes


@dataclass(frozen=True, eq=False)
class ChannelMaps:
    """What the channels of one layer in one pass are as masks, equal ones once.

    Attributes:
        maps: (D, *s), each from 0 to 1; a channel that is the same everywhere is 0.
        of_channel: LongTensor (C,), which of them each channel is.
    """

    maps: Tensor
    of_channel: Tensor


def channel_maps(activation: Tensor, *, apart: bool = False) -> ChannelMaps:
    """The masks that the channels of an activation (C, *s) make; `apart` keeps equal ones, as many as channels."""
    flat = activation.flatten(1).to(torch.promote_types(activation.dtype, torch.float32))
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    flat = torch.where(high > low, (flat - low) / (high - low), torch.where(high == low, 0.0, flat))
    if apart:
        return ChannelMaps(flat.view(activation.shape), torch.arange(len(flat)))
    distinct, of_channel = flat.unique(dim=0, return_inverse=True)
    return ChannelMaps(distinct.view(-1, *activation.shape[1:]), of_channel.cpu())


@dataclass(frozen=True, eq=False)
class Noise:
    """What is added to the masks at the inputs' resolution.

    Attributes:
        sigma: standard deviation.
        seed: of the draws.
        ids: LongTensor (N,), by which the draws of each input are keyed.
    """

    sigma: float
    seed: int
    ids: Tensor


def _blank(maps: Sequence[Sequence[ChannelMaps]]) -> tuple[Tensor, ...]:
    """Which maps of each pass and layer are 0 everywhere, on the CPU: read at once for all of them."""
    every = [own.maps.flatten(1) for of_pass in maps for own in of_pass]
    return torch.cat([own.count_nonzero(1) == 0 for own in every]).cpu().split([len(own) for own in every])


class Masked:
    """Row r shows a pass through one map, n times in a row: by turns fainter, or with other noise.

    Args:
        passes: of all inputs.
        maps: of each pass, for each layer.
        n_samples: n.
        fading: whether draw j shows (j + 1) / n of the mask; a mask of zeros, which stays one, is then shown once.
        noise: added to each mask; None for none.
    """

    def __init__(
        self,
        passes: Passes,
        maps: Sequence[Sequence[ChannelMaps]],
        n_samples: int = 1,
        *,
        fading: bool = False,
        noise: Noise | None = None,
    ) -> None:
        self._passes, self._inputs, self._noise, self._n_samples = passes, passes.tensor(), noise, n_samples
        self._maps = [torch.cat([of_pass[layer].maps for of_pass in maps]) for layer in range(len(maps[0]))]
        blank = iter(_blank(maps)) if fading else None
        starts = [0] * len(maps[0])
        tables: list[Tensor] = []  # of each map: its pass, its layer, its number there, how often it is shown
        self.first: list[list[int]] = []  # where the maps of each pass and layer begin among all
        total = 0
        for number, of_pass in enumerate(maps):
            self.first.append([])
            for layer, own in enumerate(of_pass):
                count = len(own.maps)
                times = torch.full((count,), n_samples)
                if blank is not None:
                    times[next(blank)] = 1
                place = starts[layer] + torch.arange(count)
                tables.append(torch.stack([torch.full((count,), number), torch.full((count,), layer), place, times]))
                starts[layer] += count
                self.first[-1].append(total)
                total += count
        self._pass, self._layer, self._place, self.times = torch.cat(tables, 1)
        self.of_row = torch.repeat_interleave(torch.arange(total), self.times)
        self.begins = self.times.cumsum(0) - self.times  # the first row of each map
        self._draw = torch.arange(len(self.of_row)) - self.begins[self.of_row]
        self._scale = (self._draw + 1).double() / n_samples if fading else torch.ones(len(self.of_row)).double()
        # The number of each map among those of its pass, layers after each other: draws are keyed by it.
        self._channel = torch.cat([torch.arange(sum(len(own.maps) for own in of_pass)) for of_pass in maps])

    def __len__(self) -> int:
        return len(self.of_row)

    def sample_of(self, rows: Tensor) -> Tensor:
        """The pass of each row."""
        return beside(self._pass, rows)[beside(self.of_row, rows)[rows]]

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Multiplies the passes by their maps; those of one layer at a time."""
        layers, counts = self._layer[self.of_row[known(rows)]].unique_consecutive(return_counts=True)
        start = 0
        for layer, count in zip(layers.tolist(), counts.tolist(), strict=True):
            own = rows[start : start + count]
            self._blend(layer, own, out[start : start + count])
            start += count

    def _blend(self, layer: int, rows: Tensor, out: Tensor) -> None:
        of_row = beside(self.of_row, rows)[rows]
        sample, place, channel = (beside(table, rows)[of_row] for table in (self._pass, self._place, self._channel))
        scale, draw = (beside(table, rows)[rows] for table in (self._scale, self._draw))
        if self._noise is None:
            blend_maps(self._inputs, self._maps[layer], sample, place, scale, out)
            return
        ones = self._inputs.new_ones(1, 1, *self._inputs.shape[2:])
        none = torch.zeros_like(rows)
        masks = ones.new_empty(len(rows), *ones.shape[1:])
        blend_maps(ones, self._maps[layer], none, place, scale, masks)
        sigma = torch.full((len(rows),), self._noise.sigma, dtype=torch.float64, device=rows.device)
        keys = beside(self._noise.ids, rows)[self._passes.sample_of(sample)]
        own = torch.arange(len(rows), device=rows.device)
        noisy = torch.empty_like(masks)
        add_noise(masks, sigma, own, keys, channel * self._n_samples + draw, self._noise.seed, noisy)
        out.copy_(self._inputs[sample.to(out.device)] * noisy)

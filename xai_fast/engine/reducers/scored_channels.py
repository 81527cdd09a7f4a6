"""Score-CAM's map: channels weighed by the softmax of what the model says to the passes seen through them.

Where an error is allowed for, a random part of the channels is asked, and those that seem to weigh most, twice as many
each time, until the map is known well enough; a regression on what the channels show says the others' scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.indices import known
from xai_fast.core.random import uniforms
from xai_fast.engine.estimators.shares import Shares, largest, softmax_shares
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details
from xai_fast.engine.samplers.masked import ChannelMaps, Masked, channel_maps

from .cam import Grid, resized, weighted_channels
from .cam_passes import AbstractPassesCAM
from .levels import marks, well_enough

FIRST = 64  # channels drawn after which the error is looked at
_LEAST = 8  # of these that are not certain, from which their spread is told
_AT_ONCE = 1 << 22  # elements of resized maps


@dataclass
class _Group:
    """The masks of one layer in one pass.

    Attributes:
        order: LongTensor (D,), in which they are drawn.
        marks: after how many drawn ones the error is looked at.
        drawn: how many have been.
        certain: BoolTensor (D,), which were asked about because they seem to weigh most.
        ranked: after how many drawn ones that was looked at.
        settled: whether no more are asked about.
        shares: as far as is known.
    """

    order: Tensor
    marks: list[int]
    certain: Tensor
    drawn: int = 0
    ranked: int = 0
    settled: bool = False
    shares: Shares | None = None

    @property
    def asked(self) -> Tensor:
        """LongTensor (n,): all that have been asked about."""
        drawn = torch.zeros_like(self.certain)
        drawn[self.order[: self.drawn]] = True
        return (drawn | self.certain).nonzero()[:, 0]


class ScoredChannels(AbstractPassesCAM):
    """Weighs channels by scores; `more` says which rows are asked about next, `take` takes the answers."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self._masked: Masked | None = None
        self._taken: list[tuple[Tensor, Tensor]] = []  # rows and their scores, where they were found
        self._sums: Tensor | None = None
        self._errors: Tensor | None = None

    def masks(self, *, apart: bool = False) -> list[list[ChannelMaps]]:
        """What the channels of every pass are as masks; see `channel_maps`."""
        self._maps = [
            [channel_maps(activation, apart=apart) for activation in self._activations[number]]
            for number in range(len(self.passes))
        ]
        return self._maps

    def expect(self, masked: Masked, mode: str, enough: float, seed: int, ids: Tensor) -> None:
        """Whose rows are going to be taken, until what each map errs by is that share of it where `mode` allows it."""
        self._masked, self._enough = masked, enough
        mode = "exact" if self._eigen else mode  # of a principal component no error is known
        self._groups: list[list[_Group]] = []
        for number, of_pass in enumerate(self._maps):
            key, draw = ids[self.passes.sample_of(torch.tensor([number]))], number % self.passes.each
            orders = [
                uniforms(seed, key, torch.tensor([draw * len(of_pass) + layer]), len(own.maps))[0].argsort()
                for layer, own in enumerate(of_pass)
            ]
            self._groups.append(
                [
                    _Group(order, marks(mode, FIRST, len(order)), torch.zeros(len(order), dtype=torch.bool))
                    for order in orders
                ]
            )

    def more(self) -> Tensor | None:
        """The rows to ask about next; None where all maps are known well enough."""
        assert self._masked is not None
        self._add_up(self._masked)
        masked, rows = self._masked, list[Tensor]()
        for number, of_pass in enumerate(self._groups):
            for layer, group in enumerate(of_pass):
                maps = masked.first[number][layer] + self._next(number, layer, group)
                shown = zip(masked.begins[maps].tolist(), masked.times[maps].tolist(), strict=True)
                rows += [torch.arange(first, first + times) for first, times in shown]
        return torch.cat(rows) if rows else None

    def take(self, rows: Tensor, answers: Answers) -> None:
        """Keeps the scores until `more` is asked for."""
        self._taken.append((known(rows), answers.scores.double()))

    def _add_up(self, masked: Masked) -> None:
        """Adds up the scores of each mask, which are read once for all that were asked about together."""
        if not self._taken:
            return
        rows, scores = (torch.cat(some) for some in zip(*self._taken, strict=True))
        scores = scores.cpu()
        if self._sums is None:
            self._sums = scores.new_zeros(len(masked.times), scores.shape[1])
        self._sums.index_add_(0, masked.of_row[rows], scores)
        self._taken.clear()

    def details(self, _scores: Tensor) -> Details:
        """The standard error of the maps before they are rectified, where one is left."""
        if self._errors is None:
            return Details()
        return Details(standard_error=(self._errors.sqrt() / self.passes.each).unsqueeze(2))

    def _next(self, number: int, layer: int, group: _Group) -> Tensor:
        """The masks of a group to ask about next; none where it is settled."""
        before = group.asked
        if group.drawn and group.ranked < group.drawn < len(group.order):
            group.ranked = group.drawn
            scores = self._means(number, layer)[before]
            group.certain[largest(*self._shown(number, layer), before, scores, group.drawn // 2)] = True
        if len(new := _without(group.asked, before)):
            return new
        if group.drawn and not group.settled:
            group.settled = self._settled(number, layer, group)
        if not group.settled:
            group.drawn = next(mark for mark in group.marks if mark > group.drawn)
            new = _without(group.asked, before)
            return new if len(new) else self._next(number, layer, group)
        return new

    def _settled(self, number: int, layer: int, group: _Group) -> bool:
        if len(group.asked) == len(group.order):
            group.shares = None
            return True
        group.shares = self._estimated(number, layer, group)
        if group.shares is None:
            return False
        activation = self._activations[number][layer]
        values = torch.einsum("kc,c...->k...", self._of_channels(number, layer), activation.double())
        return well_enough(values, self._squares(number, layer, None).sqrt().to(values), self._enough)

    def _shown(self, number: int, layer: int) -> tuple[Tensor, Tensor]:
        """What each mask shows (D, positions), and how many channels it stands for (D,)."""
        own = self._maps[number][layer]
        return own.maps.flatten(1).cpu(), torch.bincount(own.of_channel, minlength=len(own.maps))

    def _estimated(self, number: int, layer: int, group: _Group) -> Shares | None:
        asked, shown = group.asked, self._shown(number, layer)
        if len(asked) - int(group.certain.sum()) < _LEAST:
            return None
        return softmax_shares(*shown, asked, self._means(number, layer)[asked], group.certain)

    def _means(self, number: int, layer: int) -> Tensor:
        """The score of each mask, (D, K); NaN of those that were not asked about."""
        assert self._masked is not None
        assert self._sums is not None
        first = self._masked.first[number][layer]
        own = slice(first, first + len(self._maps[number][layer].maps))
        means = self._sums[own] / self._masked.times[own, None]
        unknown = torch.ones(len(means), dtype=torch.bool)
        unknown[self._groups[number][layer].asked] = False
        means[unknown] = torch.nan
        return means

    def _of_channels(self, number: int, layer: int) -> Tensor:
        """The channels' weights (K, C)."""
        of_channel, shares = self._maps[number][layer].of_channel, self._groups[number][layer].shares
        if shares is not None:
            found = shares.shares[:, of_channel]
        else:
            found = self._means(number, layer)[of_channel].softmax(0).T
        return found.to(self._activations[number][layer].device)

    def _weights(self, number: int) -> list[Tensor]:
        return [
            self._of_channels(number, layer).to(activation)
            for layer, activation in enumerate(self._activations[number])
        ]

    def _squares(self, number: int, layer: int, size: tuple[int, ...] | None) -> Tensor:
        """The squared standard error of one layer's map in one pass, (K, *size).

        To first order the estimate errs by what the corrections of a random part of the masks vary by, each with how
        far the map that its channels make lies from the estimated one.
        """
        activation, group = self._activations[number][layer].float(), self._groups[number][layer]
        if group.shares is None:
            return activation.new_zeros(self._targets, *(size or activation.shape[1:]))
        own, drawn = self._maps[number][layer], group.shares.corrected
        sums = torch.zeros(len(own.maps), *activation.shape[1:], device=activation.device)
        sums.index_add_(0, own.of_channel.to(activation.device), activation)
        counts = torch.bincount(own.of_channel, minlength=len(own.maps)).to(sums)
        weights, corrections = self._of_channels(number, layer).to(sums), group.shares.corrections.to(sums)
        found = []
        for share, correction in zip(weights, corrections, strict=True):
            mean = torch.einsum("c,c...->...", share, activation)
            apart = sums[drawn] - torch.einsum("d,...->d...", counts[drawn], mean)
            found.append(_spread(torch.einsum("d,d...->d...", correction, apart), size))
        count, every = len(drawn), group.shares.others
        return torch.stack(found) * (count * (1 - count / every) / (count - 1))

    def _draw(self, number: int, weights: Sequence[Tensor]) -> None:
        if any(group.shares is not None for group in self._groups[number]):
            self._add_error(number, weights)
        super()._draw(number, weights)

    def _add_error(self, number: int, weights: Sequence[Tensor]) -> None:
        """Adds the squared error of one pass to its input's."""
        activations, size = self._activations[number], self._size_of(self._activations[number])
        squares = torch.stack([self._squares(number, layer, size) for layer in range(len(activations))])
        if self._fuse == "max":  # the error of the layer that is seen
            draw = weighted_channels(lambda grid: weights[grid.place][None], relu=self._relu)
            grids = [
                Grid(one[None], None, None, targets=self._targets, place=place) for place, one in enumerate(activations)
            ]
            seen = torch.stack([draw(grid, size)[0] for grid in grids]).argmax(0)
            found = squares.gather(0, seen[None])[0]
        else:
            found = squares.sum(0) / len(activations) ** 2
        found = found.flip(-1) if self.passes.mirrored(number) else found
        if self._errors is None:
            self._errors = found.new_zeros(len(self.passes.inputs), *found.shape)
        self._errors[number // self.passes.each] += found


def _without(all_: Tensor, some: Tensor) -> Tensor:
    return all_[~torch.isin(all_, some)]


def _spread(parts: Tensor, size: tuple[int, ...] | None) -> Tensor:
    """The sum of squared distances of maps (n, *s) from their mean, each resized."""
    if size is None:
        return (parts - parts.mean(0)).square().sum(0)
    parts = parts - parts.mean(0)
    chunk = max(1, _AT_ONCE // torch.Size(size).numel())
    return torch.stack([resized(some[None], size)[0].square().sum(0) for some in parts.split(chunk)]).sum(0)

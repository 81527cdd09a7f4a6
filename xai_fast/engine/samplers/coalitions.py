"""Coalitions of segments: each row shows some segments of its input and hides the others, every distinct one once."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from xai_fast.core.indices import beside, both, known
from xai_fast.images.segments import SegmentMap
from xai_fast.ops import hide_segments

from .segments import changed_by


class Draws(Protocol):
    """Which segments each of D draws shows; the draws of an input follow each other."""

    @property
    def counts(self) -> Tensor:
        """LongTensor (N,) draws of each input."""
        ...

    def keep(self, draws: Tensor) -> Tensor:
        """BoolTensor (draws, largest number of segments): which segments the draws show; beside `draws`."""
        ...

    def fingerprints(self, keys: Tensor) -> Tensor:
        """LongTensor (D, 2): the sum, modulo 2^64, of the keys (N, largest number, 2) of the segments shown."""
        ...


@dataclass(frozen=True, eq=False)
class Table:
    """Draws as they are.

    Args:
        shown: BoolTensor (D, largest number of segments).
        counts: LongTensor (N,) draws of each input.
    """

    shown: Tensor
    counts: Tensor

    def keep(self, draws: Tensor) -> Tensor:
        """The rows of the table."""
        return beside(self.shown, draws)[draws]

    def fingerprints(self, keys: Tensor) -> Tensor:
        """Input by input a product of whole numbers, which wrap."""
        rows = self.shown.split(self.counts.tolist())
        return torch.cat([shown.long() @ key for shown, key in zip(rows, keys, strict=True)])


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Every beginning of several orders: none of the segments once, then of each order the first, the first two, ...

    All segments together are the input itself and no draw.

    Args:
        orders: per input LongTensor (P, K), in which order its K segments appear.
    """

    orders: tuple[Tensor, ...]

    @property
    def counts(self) -> Tensor:
        """LongTensor (N,): 1 + P (K - 1), or the empty draw alone."""
        return torch.tensor([1 + len(order) * max(order.shape[1] - 1, 0) for order in self.orders])

    def keep(self, draws: Tensor) -> Tensor:
        """What a draw shows are the segments whose places are below its length."""
        most = max(order.shape[1] for order in self.orders)
        shown = torch.zeros(len(draws), most, dtype=torch.bool, device=draws.device)
        ends = self.counts.cumsum(0)
        sample = torch.searchsorted(ends, known(draws), right=True)
        # Stretches of draws of one input, by their places, which the host knows.
        of_each, lengths_of = sample.unique_consecutive(return_counts=True)
        stops = lengths_of.cumsum(0).tolist()
        for n, start, stop in zip(of_each.tolist(), [0, *stops], stops, strict=False):
            number = draws[start:stop] - int(ends[n] - self.counts[n]) - 1  # -1 is the empty one
            lengths = max(self.orders[n].shape[1] - 1, 1)
            places = beside(self._places[n], draws)
            if len(places):
                own = places[number.clamp_min(0) // lengths] <= (number % lengths)[:, None]
                shown[start:stop, : places.shape[1]] = own & (number >= 0)[:, None]
        return shown

    def fingerprints(self, keys: Tensor) -> Tensor:
        """Sums on the way through each order."""
        found = []
        for order, key in zip(self.orders, keys, strict=True):
            found += [key.new_zeros(1, 2), key[order].cumsum(1)[:, :-1].flatten(0, 1)]
        return torch.cat(found)

    @functools.cached_property
    def _places(self) -> list[Tensor]:
        """Per input (P, K): at which place of each order a segment stands."""
        return [order.argsort(1) for order in self.orders]


class Coalitions:
    """Rows are the distinct draws, input by input; segments that already are the baseline distinguish none.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        segments: theirs.
        draws: which coalitions.
    """

    change: ClassVar[str] = "everything"

    def __init__(self, inputs: Tensor, baseline: Tensor, segments: SegmentMap, draws: Draws) -> None:
        self._inputs, self._baseline, self._segments, self._draws = inputs, baseline, segments, draws
        keys = _keys(len(inputs), int(segments.counts.max()))
        keys *= changed_by(inputs, baseline, segments)[..., None]
        prints = draws.fingerprints(keys)
        sample = torch.arange(len(inputs)).repeat_interleave(draws.counts)
        every = torch.cat([sample[:, None], prints], dim=1).contiguous().numpy()
        _, first, inverse = np.unique(every.view("i8,i8,i8")[:, 0], return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._drawn = torch.from_numpy(first[order])  # the draw that each row stands for
        self._sample = sample[self._drawn]
        self._full = (prints[self._drawn] == keys.sum(1)[self._sample]).all(1)
        self.row_of = torch.from_numpy(place[inverse])
        """LongTensor (D,): the row that has the answer to each draw."""

    def __len__(self) -> int:
        return len(self._drawn)

    def sample_of(self, rows: Tensor) -> Tensor:
        """Coalitions of one input follow each other."""
        return beside(self._sample, rows)[rows]

    def unchanged(self) -> Tensor:
        """BoolTensor (rows,): which show all that differs from the baseline."""
        return self._full

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the inputs, the segments that a row does not show replaced by the baseline."""
        keep = self._draws.keep(both(lambda own: beside(self._drawn, own)[own], rows))
        hide_segments(self._inputs, self._baseline, self._labels, self.sample_of(rows), keep, out)

    @functools.cached_property
    def _labels(self) -> Tensor:
        return self._segments.labels_on(self._inputs.device)


def _keys(n_inputs: int, most: int) -> Tensor:
    """LongTensor (N, most, 2) of whole numbers whose sums tell sets of segments apart, but for one pair in 2^128."""
    generator = torch.Generator().manual_seed(0)
    low = torch.iinfo(torch.long).min
    return torch.randint(low, -(low + 1), (1, most, 2), generator=generator).repeat(n_inputs, 1, 1)

"""Segments of a label map hidden one at a time: each row re-runs only the box around its segment."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.images.segments import SegmentMap
from xai_fast.ops import hide_segments, region_gather


def changed_by(inputs: Tensor, baseline: Tensor, segments: SegmentMap) -> Tensor:
    """BoolTensor (N, largest number): where hiding a segment changes anything; False where there is no such segment."""
    differs = (inputs != baseline).any(1).cpu() & (segments.labels >= 0)
    changed = torch.zeros(len(inputs), int(segments.counts.max()) + 1, dtype=torch.long)
    changed.scatter_add_(1, segments.labels.flatten(1) + 1, differs.flatten(1).long())
    return changed[:, 1:] > 0


@dataclass(frozen=True, eq=False)
class HiddenSegments:
    """Rows hide the segments of the inputs, input by input: the segment becomes the baseline.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        segments: theirs.
    """

    inputs: Tensor
    baseline: Tensor
    segments: SegmentMap
    change: ClassVar[str] = "boxes"

    def __len__(self) -> int:
        return int(self.segments.counts.sum())

    def sample_of(self, rows: Tensor) -> Tensor:
        """Segments of one input follow each other."""
        return torch.searchsorted(beside(self._stops, rows), rows, right=True)

    def number_of(self, rows: Tensor) -> Tensor:
        """(rows,) which segment of its input each row hides."""
        return rows - beside(self._starts, rows)[self.sample_of(rows)]

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the inputs with their segments hidden."""
        every = torch.arange(int(self.segments.counts.max()), device=rows.device)
        keep = every != self.number_of(rows)[:, None]
        hide_segments(self.inputs, self.baseline, self._labels, self.sample_of(rows), keep, out)

    def unchanged(self) -> Tensor:
        """BoolTensor (rows,): in which rows the segment already is the baseline."""
        return ~changed_by(self.inputs, self.baseline, self.segments)[self._there()]

    def spans(self) -> Tensor:
        """LongTensor (rows, A, 2): the smallest box around each segment."""
        labels = self.segments.labels
        shape = (len(labels), int(self.segments.counts.max()) + 1)
        spans = []
        for axis, extent in enumerate(labels.shape[1:]):
            position = torch.arange(extent).view(-1, *[1] * (labels.ndim - axis - 2)).expand(labels.shape).flatten(1)
            index = labels.flatten(1) + 1
            first = torch.full(shape, extent).scatter_reduce_(1, index, position, "amin")
            last = torch.full(shape, -1).scatter_reduce_(1, index, position, "amax")
            spans.append(torch.stack([first, last + 1], dim=2)[:, 1:][self._there()])
        return torch.stack(spans, dim=1)

    def patch(self, rows: Tensor, at: Tensor, out: Tensor) -> None:
        """Writes the variants from the positions `at` (rows, A) on into `out` (rows, C, *s)."""
        sample = self.sample_of(rows)
        inputs = torch.empty(out.shape, dtype=self.inputs.dtype, device=out.device)
        baseline = torch.empty_like(inputs)
        region_gather(self.inputs, None, None, sample, at, inputs)
        region_gather(self.baseline.expand_as(self.inputs), None, None, sample, at, baseline)
        labels = torch.empty((len(rows), 1, *out.shape[2:]), dtype=torch.float64, device=out.device)
        region_gather(self._numbers, None, None, sample, at, labels, "constant", -1.0)
        hidden = labels == self.number_of(rows).to(out.device).view(-1, *[1] * (labels.ndim - 1))
        out.copy_(torch.where(hidden, baseline, inputs))

    @functools.cached_property
    def _stops(self) -> Tensor:
        """Behind the last row of each input."""
        return self.segments.counts.cumsum(0)

    @functools.cached_property
    def _starts(self) -> Tensor:
        """The first row of each input."""
        return self._stops - self.segments.counts

    @functools.cached_property
    def _labels(self) -> Tensor:
        return self.segments.labels_on(self.inputs.device)

    @functools.cached_property
    def _numbers(self) -> Tensor:
        """The labels as (N, 1, *S) numbers, which `region_gather` reads; they are exact in float64."""
        labels = self._labels
        one = labels[:1] if labels.stride(0) == 0 else labels
        return one.double().expand(labels.shape)[:, None]

    def _there(self) -> Tensor:
        """BoolTensor (N, largest count): which numbers are segments of each input."""
        return torch.arange(int(self.segments.counts.max())) < self.segments.counts[:, None]

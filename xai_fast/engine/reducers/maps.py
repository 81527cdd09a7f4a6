"""Maps of samples: rows of one sample are added up, the finished map is kept, or joins those of other samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from xai_fast.core.indices import known, spanning
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Details
from xai_fast.ops import moments

# From rows (rows,) and their answers to what each adds to its sample's map: (parts (P, K, ...), samples (P,)).
Parts = Callable[[Tensor, Answers], tuple[Tensor, Tensor]]
# From samples (S,) and the sums of their parts (S, K, ...) to their maps (S, K, ...).
Whole = Callable[[Tensor, Tensor], Tensor]


class Sink(Protocol):
    """Takes maps of samples as they are finished, in the samples' order."""

    def take(self, samples: Tensor, maps: Tensor) -> None:
        """Takes the maps (S, K, ...) of samples (S,)."""
        ...

    def finish(self) -> Tensor:
        """(N, K, ...)."""
        ...


class SampleMaps:
    """Adds up what the rows of each sample contribute, and hands each map on when its last row has come.

    Args:
        parts: what each row contributes.
        whole: what the sums become.
        per_sample: rows of each sample, which follow each other.
        sink: who takes the maps.
    """

    def __init__(self, parts: Parts, whole: Whole | None, per_sample: int, sink: Sink) -> None:
        self._parts, self._whole, self._per_sample, self._sink = parts, whole, per_sample, sink
        self._open: dict[int, Tensor] = {}

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """The clean scores are kept by the loop."""

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Takes rows in their order."""
        parts, samples = self._parts(rows, answers)
        if self._per_sample == 1:
            self._sink.take(samples, self._finished(samples, parts))
            return
        last = int(known(rows)[-1])
        distinct, counts = known(samples).unique_consecutive(return_counts=True)
        stops = counts.cumsum(0).tolist()
        for sample, start, stop in zip(distinct.tolist(), [0, *stops], stops, strict=False):
            total = self._open.get(sample)
            if total is None:
                total = torch.zeros(parts.shape[1:], dtype=torch.float64, device=parts.device)
                self._open[sample] = total
            mine = parts[start:stop]
            moments(mine, None, torch.zeros(len(mine), dtype=torch.long, device=mine.device), total[None], None)
            if last >= (sample + 1) * self._per_sample - 1:
                done = spanning(sample, sample + 1, parts.device)
                self._sink.take(done, self._finished(done, self._open.pop(sample)[None]))

    def finish(self) -> Tensor:
        """(N, K, ...)."""
        assert not self._open
        return self._sink.finish()

    def details(self, scores: Tensor) -> Details:
        """What the sink knows."""
        return Details(snapshots=getattr(self._sink, "snapshots", {}))

    def _finished(self, samples: Tensor, sums: Tensor) -> Tensor:
        return sums if self._whole is None else self._whole(samples, sums)


class Stored:
    """Keeps the maps: every sample is an input, and they come in order."""

    def __init__(self) -> None:
        self._maps: list[Tensor] = []

    def take(self, samples: Tensor, maps: Tensor) -> None:
        """Appends them."""
        self._maps.append(maps)

    def finish(self) -> Tensor:
        """(N, K, ...)."""
        return torch.cat(self._maps)


class Aggregate:
    """The mean, mean square or variance of the maps of each input's samples.

    Args:
        n_inputs: N.
        n_samples: per input.
        kind: "mean", "square", or "variance", which divides by the number of samples.
        snapshots: after how many samples the map of each input is kept as well.
    """

    def __init__(self, n_inputs: int, n_samples: int, kind: str, snapshots: Sequence[int]) -> None:
        self._n_inputs, self._n_samples, self._kind = n_inputs, n_samples, kind
        self._marks = sorted(set(snapshots))
        self._total: Tensor | None = None
        self._squares: Tensor | None = None
        self._kept: dict[int, list[Tensor]] = {mark: [] for mark in self._marks}

    def take(self, samples: Tensor, maps: Tensor) -> None:
        """Adds them to their inputs, stretch by stretch between the marks."""
        if self._total is None and self._squares is None:
            self._begin(maps)
        known_ones = known(samples)
        owner, draw = known_ones // self._n_samples, known_ones % self._n_samples
        bounds = torch.tensor([0, *self._marks, self._n_samples])
        stretch = owner * len(bounds) + torch.bucketize(draw, bounds, right=True)
        ends = stretch.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()
        for begin, end in zip([0, *ends], ends, strict=False):
            group = samples[begin:end].to(maps.device) // self._n_samples
            moments(maps[begin:end], None, group, self._total, self._squares)
            count = int(draw[end - 1]) + 1
            if count in self._kept:
                self._kept[count].append(self._map(int(owner[end - 1]), count))

    def finish(self) -> Tensor:
        """(N, K, ...)."""
        return torch.stack([self._map(n, self._n_samples) for n in range(self._n_inputs)])

    @property
    def snapshots(self) -> dict[int, Tensor]:
        """The kept maps (N, K, ...) by the number of samples."""
        return {mark: torch.stack(maps) for mark, maps in self._kept.items()}

    def _begin(self, maps: Tensor) -> None:
        zeros = torch.zeros(self._n_inputs, *maps.shape[1:], dtype=torch.float64, device=maps.device)
        self._total = zeros if self._kind != "square" else None
        self._squares = torch.zeros_like(zeros) if self._kind != "mean" else None

    def _map(self, n: int, count: int) -> Tensor:
        if self._squares is None:
            assert self._total is not None
            return self._total[n] / count
        if self._total is None:
            return self._squares[n] / count
        # Rounding may leave a variance of nothing a hair below zero.
        return (self._squares[n] / count - (self._total[n] / count).square()).clamp_min(0)

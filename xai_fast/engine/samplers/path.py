"""Points on straight paths: from a baseline to each sample of a source, at given or drawn positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.core.random import choices, uniforms
from xai_fast.engine.recipe import Variants
from xai_fast.ops import add_noise, path_points

from .clean import Clean
from .noisy import NESTED
from .references import References


class Source(Variants, Protocol):
    """Samples that further rows are made of: the inputs themselves, or the inputs with noise."""

    def keys(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """By which draws made for the rows are keyed: an id, and the number of the first draw; LongTensors (rows,)."""
        ...


@dataclass(frozen=True, eq=False)
class PathPoints:
    """Row r is the point alpha[r % P] between the baseline (0) and sample r // P (1).

    Args:
        source: of the samples.
        baseline: (N, C, *S), any strides: one per input.
        alphas: float64 (P,).
        samples: numbers of the source's samples, where not all of them are meant.
    """

    source: Source
    baseline: Tensor
    alphas: Tensor
    samples: Tensor | None = None
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return (len(self.source) if self.samples is None else len(self.samples)) * len(self.alphas)

    def source_of(self, rows: Tensor) -> Tensor:
        """The points of one sample follow each other."""
        samples = rows // len(self.alphas)
        return samples if self.samples is None else beside(self.samples, rows)[samples]

    def sample_of(self, rows: Tensor) -> Tensor:
        """The input that each row's sample is of."""
        return self.source.sample_of(self.source_of(rows))

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the points."""
        alpha = beside(self.alphas, rows)[rows % len(self.alphas)]
        _between(self.source, self.source_of(rows), self.baseline, self.sample_of(rows), alpha, out)


@dataclass(frozen=True, eq=False)
class RandomPoints:
    """Row r is a point at a drawn position between a drawn baseline and sample r // n, to which noise may be added.

    Args:
        source: of the samples.
        references: the baselines: as many for each input, by their numbers in one tensor.
        n_samples: n, draws per sample.
        noise: standard deviation of the noise that is added to a sample before a point is taken.
        seed: of all draws.
        draws: (positions float64 (rows,), choices among an input's baselines LongTensor (rows,)) of every row; None
            draws them.
    """

    source: Source
    references: References
    n_samples: int
    noise: float
    seed: int
    draws: tuple[Tensor, Tensor] | None = None
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return len(self.source) * self.n_samples

    def source_of(self, rows: Tensor) -> Tensor:
        """The draws of one sample follow each other."""
        return rows // self.n_samples

    def sample_of(self, rows: Tensor) -> Tensor:
        """The input that each row's sample is of."""
        return self.source.sample_of(self.source_of(rows))

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the points."""
        alpha, number = self._drawn(rows)
        if self.noise:
            self.write_ends(rows, out)
            every = torch.arange(len(rows), device=rows.device)
            path_points(out, self.references.tensor, every, number, alpha, out)
        else:
            _between(self.source, self.source_of(rows), self.references.tensor, number, alpha, out)

    def write_ends(self, rows: Tensor, out: Tensor) -> None:
        """Writes the samples, noise added, towards which the points lie."""
        self.source.write(self.source_of(rows), out)
        if self.noise:
            key, draw = self._keys(rows)
            scale = torch.full((len(rows),), self.noise, dtype=torch.float64, device=rows.device)
            add_noise(out, scale, torch.arange(len(rows), device=rows.device), key, draw, self.seed, out)

    def number_of(self, rows: Tensor) -> Tensor:
        """The baseline (rows,) from which each row's path begins."""
        return self._drawn(rows)[1]

    def _drawn(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        if self.draws is not None:
            alpha, choice = (beside(given, rows)[rows] for given in self.draws)
            return alpha, self.references.number(self.sample_of(rows), choice)
        uniform = uniforms(self.seed, *self._keys(rows), 2)
        choice = choices(uniform[:, 1], self.references.count)
        return uniform[:, 0], self.references.number(self.sample_of(rows), choice)

    def _keys(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        key, first = self.source.keys(self.source_of(rows))
        base = torch.where(first >= NESTED, NESTED, 0)
        outer = first - base
        return key, base + outer * self.n_samples + rows % self.n_samples


@dataclass(frozen=True, eq=False)
class Repeated:
    """Row r is sample r // times.

    Args:
        source: of the samples.
        times: how often each is told.
    """

    source: Source
    times: int
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return len(self.source) * self.times

    def source_of(self, rows: Tensor) -> Tensor:
        """The repetitions of one sample follow each other."""
        return rows // self.times

    def sample_of(self, rows: Tensor) -> Tensor:
        """The input that each row's sample is of."""
        return self.source.sample_of(self.source_of(rows))

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the samples."""
        self.source.write(self.source_of(rows), out)


def _between(source: Source, samples: Tensor, baseline: Tensor, reference: Tensor, alpha: Tensor, out: Tensor) -> None:
    """Writes the points `alpha` between baselines and samples; clean inputs are read where they are."""
    if isinstance(source, Clean):
        path_points(source.inputs, baseline, samples, reference, alpha, out)
    else:
        source.write(samples, out)
        every = torch.arange(len(samples), device=samples.device)
        path_points(out, baseline, every, reference, alpha, out)

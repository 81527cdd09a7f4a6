"""Random grids of cells: each input several times, each time seen through the cells that its number alone decides."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xai_fast.core.indices import beside, known
from xai_fast.core.random import choices, uniforms
from xai_fast.ops import cell_extent, grid_masks

from .subsets import binomial

# Draws are dealt in turn to so many groups. What is drawn in one is independent of what is drawn in the others, so that
# the groups' means tell what their own mean errs by.
GROUPS = 20
# Draws from here on are no masks: where the groups' sequences of numbers of cells begin.
_STARTS = 1 << 31
# Numbers are drawn for blocks of so many draws, or of so many cells, each of which takes some hundred bytes meanwhile:
# a few hundred draws take little longer than one. The latest blocks are kept as bits.
_BLOCK, _AT_ONCE, _KEPT = 512, 1 << 18, 16
_DIGITS = torch.arange(32)  # of the numbers of draws
_POWERS = 0.5 ** (_DIGITS + 1).double()


@dataclass(frozen=True, eq=False)
class GridDraws:
    """Which cells each draw keeps, and by how much the grid is shifted.

    Number i of a draw decides on cell i, the cells counted with the last axis fastest; the numbers after these on the
    shift along each axis.

    Args:
        extents: of the input along each spatial axis.
        cells: along each axis.
        keep: the probability with which a cell is kept, above 0 and below 1.
        sampler: "bernoulli": every cell on its own. "stratified": how many are kept follows, in every group, a van der
            Corput sequence from a random start on through the inverse of the binomial distribution, and which ones is
            then drawn; each single draw has the same distribution as before. "antithetic": every second draw keeps what
            the one before it does not, at the same shift.
        seed: of all draws.
    """

    extents: tuple[int, ...]
    cells: int
    keep: float
    sampler: str
    seed: int

    @property
    def positions(self) -> tuple[int, ...]:
        """How many shifts there are along each axis."""
        return tuple(cell_extent(extent, self.cells) for extent in self.extents)

    @property
    def together(self) -> int:
        """How many successive draws are made of the same numbers: a mask and its opposite, or one."""
        return 2 if self.sampler == "antithetic" else 1

    def group_of(self, draw: Tensor) -> Tensor:
        """The group of each draw; draws that depend on each other are in one."""
        return draw // self.together % GROUPS

    def __call__(self, ids: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Grids, BoolTensor (M, *cells), and shifts, LongTensor (M, A), of samples with these ids; on their device."""
        shape = [self.cells] * len(self.extents)
        total = math.prod(shape)
        numbers = uniforms(self.seed, ids, draw - draw % self.together, total + len(shape))
        shifts = choices(numbers[:, total:], beside(self._options, draw))
        numbers = numbers[:, :total]
        if self.sampler == "stratified":
            kept = numbers.argsort(stable=True, dim=1).argsort(1) < self._counts(ids, draw)[:, None]
        else:
            kept = (numbers < self.keep) ^ (draw % self.together == 1)[:, None]
        return kept.view(-1, *shape), shifts

    def _counts(self, ids: Tensor, draw: Tensor) -> Tensor:
        """How many cells each draw keeps."""
        start = uniforms(self.seed, ids, _STARTS + draw % GROUPS, 1)[:, 0]
        distribution = beside(self._distribution, draw)
        return torch.searchsorted(distribution, (radical_inverse(draw // GROUPS) + start) % 1.0, right=True)

    @functools.cached_property
    def _options(self) -> Tensor:
        """LongTensor (A,), how many shifts there are along each axis."""
        return torch.tensor(self.positions)

    @functools.cached_property
    def _distribution(self) -> Tensor:
        """P(at most k cells are kept), k = 0, 1, ...; without the last one, which is 1."""
        total = self.cells ** len(self.extents)
        return binomial(total, torch.arange(total), self.keep).cumsum(0)


def radical_inverse(number: Tensor) -> Tensor:
    """The van der Corput sequence in base 2: the binary digits of each number mirrored behind the point, float64."""
    digits, powers = beside(_DIGITS, number), beside(_POWERS, number)
    # Each term is a power of two and all fit into one number, so that no order of adding up rounds.
    return ((number[..., None] >> digits & 1) * powers).sum(-1)


@dataclass(frozen=True, eq=False)
class BehindGrids:
    """Row r is input r // n behind mask r % n.

    Args:
        inputs: (N, C, *S), on the device of the model.
        baseline: broadcasts to `inputs`.
        n_masks: n, draws per input.
        draw: what is drawn.
        ids: LongTensor (N,), by which the draws of each input are keyed.
        draws: grids (n, *cells) and shifts (n, A), or one axis N before each, in place of drawn ones; None draws.
    """

    inputs: Tensor
    baseline: Tensor
    n_masks: int
    draw: GridDraws
    ids: Tensor
    draws: tuple[Tensor, Tensor] | None = None
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return len(self.inputs) * self.n_masks

    def sample_of(self, rows: Tensor) -> Tensor:
        """The masks of one input follow each other."""
        return rows // self.n_masks

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def masks(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The grids (rows, *cells) and shifts (rows, A) of some rows, drawn when they are asked for."""
        sample, number = self.sample_of(rows), rows % self.n_masks
        if self.draws is not None:
            several = self.draws[1].ndim == 3
            given = [beside(one, rows) for one in self.draws]
            grids, shifts = (one[sample, number] if several else one[number] for one in given)
            return grids, shifts
        grids, shifts = [], []
        for start, stop, key, block in self._stretches(known(rows)):
            at = number[start:stop] - block * self._step
            of_block = self._blocks(key, block, rows.device)
            grids.append(of_block[0][at])
            shifts.append(of_block[1][at])
        return torch.cat(grids), torch.cat(shifts)

    def _stretches(self, rows: Tensor) -> list[tuple[int, int, int, int]]:
        """(start, stop, id, block) of successive rows whose draws are of one block."""
        keys = torch.stack([self.ids[self.sample_of(rows)], rows % self.n_masks // self._step], dim=1)
        found, counts = keys.unique_consecutive(dim=0, return_counts=True)
        stops = counts.cumsum(0).tolist()
        return [(a, b, *pair) for a, b, pair in zip([0, *stops], stops, found.tolist(), strict=False)]

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the inputs behind their masks."""
        grid_masks(self.inputs, self.baseline, *self.masks(rows), self.sample_of(rows), out)

    @functools.cached_property
    def _step(self) -> int:
        """Draws of a block."""
        return max(min(_BLOCK, self.n_masks, _AT_ONCE // self.draw.cells ** len(self.draw.extents)), 1)

    @functools.cached_property
    def _blocks(self) -> Callable[[int, int, torch.device], tuple[Tensor, Tensor]]:
        """Grids and shifts by id and number of the block, on a device."""
        return functools.lru_cache(maxsize=_KEPT)(functools.partial(_block, self.draw, self._step))


def _block(draw: GridDraws, step: int, key: int, block: int, device: torch.device) -> tuple[Tensor, Tensor]:
    numbers = torch.arange(block * step, (block + 1) * step, device=device)
    return draw(torch.full_like(numbers, key), numbers)

"""The passes that a map is averaged over, as inputs of their own: the clean one, and the augmented ones if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from xai_fast.core.indices import beside, both, spanning

from .augmented import Augmented


@dataclass(frozen=True, eq=False)
class Passes:
    """Pass P·n is input n, unchanged; the P − 1 behind it are augmented, if there are any.

    Attributes:
        inputs: (N, C, *S).
        augmented: whether there are six passes of each input, and not one.
    """

    inputs: Tensor
    augmented: bool

    @property
    def each(self) -> int:
        """P."""
        return 1 + Augmented.PER_INPUT if self.augmented else 1

    def __len__(self) -> int:
        return len(self.inputs) * self.each

    def variants(self) -> Augmented | None:
        """The augmented ones, row by row."""
        return Augmented(self.inputs) if self.augmented else None

    def of_clean(self, sample: Tensor) -> Tensor:
        """The numbers of the clean passes of some inputs."""
        return sample * self.each

    def of_variants(self, rows: Tensor) -> Tensor:
        """The numbers of the passes that are some rows of `variants`."""
        return rows // Augmented.PER_INPUT * self.each + 1 + rows % Augmented.PER_INPUT

    def sample_of(self, passes: Tensor) -> Tensor:
        """The input of each pass."""
        return passes // self.each

    def mirrored(self, number: int) -> bool:
        """Whether a pass is of a mirror image."""
        if number % self.each == 0:
            return False
        return bool(Augmented(self.inputs).mirrored(torch.tensor([number % self.each - 1])))

    def tensor(self) -> Tensor:
        """(N · P, C, *S)."""
        variants = self.variants()
        if variants is None:
            return self.inputs
        rows = spanning(0, len(variants), self.inputs.device)
        out = self.inputs.new_empty(len(self), *self.inputs.shape[1:])
        out[self.of_clean(spanning(0, len(self.inputs), self.inputs.device))] = self.inputs
        made = self.inputs.new_empty(len(rows), *self.inputs.shape[1:])
        variants.write(rows, made)
        out[self.of_variants(rows)] = made
        return out


class OfPasses(Protocol):
    """Rows that are variants of passes; `sample_of` gives their numbers."""

    def __len__(self) -> int: ...

    def sample_of(self, rows: Tensor) -> Tensor:
        """The pass of each row."""
        ...

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes the rows."""
        ...


@dataclass(frozen=True, eq=False)
class Picked:
    """Some of the rows that are variants of passes."""

    rows: OfPasses
    picked: Tensor

    def __len__(self) -> int:
        return len(self.picked)

    def sample_of(self, rows: Tensor) -> Tensor:
        """The pass of each."""
        return self.rows.sample_of(self.of(rows))

    def write(self, rows: Tensor, out: Tensor) -> None:
        """Writes them."""
        self.rows.write(self.of(rows), out)

    def of(self, rows: Tensor) -> Tensor:
        """Their numbers among all rows."""
        return both(lambda own: beside(self.picked, own)[own], rows)


@dataclass(frozen=True, eq=False)
class VariantsOfPasses:
    """Variants of passes as variants of the inputs that these are made of."""

    rows: OfPasses
    passes: Passes
    change: ClassVar[str] = "everything"

    def __len__(self) -> int:
        return len(self.rows)

    def sample_of(self, rows: Tensor) -> Tensor:
        """The input that each row's pass is of."""
        return self.passes.sample_of(self.rows.sample_of(rows))

    def unchanged(self) -> Tensor:
        """Nothing is known to be."""
        return torch.zeros(len(self), dtype=torch.bool)

    def write(self, rows: Tensor, out: Tensor) -> None:
        """As the variants of the passes write."""
        self.rows.write(rows, out)

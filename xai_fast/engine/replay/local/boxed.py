"""Variants that differ from their inputs inside boxes: what a sampler must know for regions to be re-run."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Boxed(Protocol):
    """Variants that differ from their inputs inside boxes."""

    def sample_of(self, rows: Tensor) -> Tensor:
        """The input that each of `rows` is a variant of."""
        ...

    def spans(self) -> Tensor:
        """LongTensor (R, A, 2): per row and axis of positions, the half-open range in which it may differ."""
        ...

    def patch(self, rows: Tensor, at: Tensor, out: Tensor) -> None:
        """Writes what the variants `rows` are from the positions `at` (rows, A) on into `out` (rows, C, *s)."""
        ...

    def write(self, rows: Tensor, out: Tensor) -> None:
        """As `Variants.write`."""
        ...

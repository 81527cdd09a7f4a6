"""Maps of a layer's shape, read as a grid over the input once they are finished."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from xai_fast.core.layers import Reading
from xai_fast.engine.evaluate import Answers
from xai_fast.engine.recipe import Detailed, Details, Reducer


class OnGrid:
    """A reducer whose maps (N, K, *layer) become (N, K, C, *s); sums and gaps stay those of the whole layer.

    Args:
        reduce: makes the maps.
        reading: how the layer's output is a grid.
    """

    def __init__(self, reduce: Reducer, reading: Reading) -> None:
        self._reduce, self._reading = reduce, reading

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Hands them on."""
        self._reduce.clean(sample, answers)

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Hands them on."""
        self._reduce.update(rows, answers)

    def finish(self) -> Tensor:
        """(N, K, C, *s)."""
        return read_maps(self._reduce.finish(), self._reading)

    def details(self, scores: Tensor) -> Details:
        """The other's, maps among them on the grid."""
        if not isinstance(self._reduce, Detailed):
            return Details()
        found = self._reduce.details(scores)
        snapshots = {mark: read_maps(maps, self._reading) for mark, maps in found.snapshots.items()}
        return dataclasses.replace(found, snapshots=snapshots)


def read_maps(maps: Tensor, reading: Reading) -> Tensor:
    """(N, K, C, *s) from maps (N, K, ...) in the layer's shape."""
    return reading(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

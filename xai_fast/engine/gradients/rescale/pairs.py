"""The pairs of an input row and a reference row for which one backward runs, and what the rules read about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from xai_fast.core.indices import known
from xai_fast.graph.layout import LAYOUTS
from xai_fast.graph.steps import Step

from .dependence import Dependence


class Pairs:
    """P pairs of rows under K scores; gradients have P * K rows, the scores of a pair side by side.

    Args:
        dependence: of the model.
        constants: steps that make what the rules read beside changed values.
        kept: values of the forward, the X input rows first.
        inputs: X.
        of: (P,) rows among the inputs.
        to: (P,) rows among the references.
        scores: K.
        device: where they run.
        channels_last: whether maps are laid out so.
    """

    def __init__(
        self,
        dependence: Dependence,
        constants: Sequence[Step],
        kept: Mapping[int, Tensor],
        inputs: int,
        of: Tensor,
        to: Tensor,
        scores: int,
        *,
        device: torch.device,
        channels_last: bool,
    ) -> None:
        self._dependence, self._steps, self._kept, self._channels_last = dependence, constants, kept, channels_last
        self.count, self.scores, self.rows = len(of), scores, len(of) * scores
        self._device = device
        self._of, self._to = _Rows(of, 0, device), _Rows(to, inputs, device)
        self._constants: dict[int, dict[int, Any]] = {}

    def both(self, number: int) -> tuple[Tensor, Tensor]:
        """A kept value for the input and the reference of every pair; one row where that is the same in all pairs."""
        value, batched = self._kept[number], self.batched(number)
        return self._of.taken(value, batched), self._to.taken(value, batched)

    def of_inputs(self, value: Tensor, batched: int) -> Tensor:
        """The rows of each pair's input from the rows of all inputs."""
        return self._of.taken(value, batched).expand(self.count * batched, *value.shape[1:])

    def dtype(self, number: int) -> torch.dtype | None:
        """Of a value, as the forward makes it."""
        return self._dependence.graph.traits[number].dtype

    def batched(self, number: int) -> int:
        """How many leading entries of a value belong to a row."""
        return self._dependence.graph.traits[number].batched or 1

    def per_score(self, factor: Tensor, number: int) -> Tensor:
        """What holds for a pair, (P * b or b, ...), against gradients of all rows."""
        batched = self.batched(number)
        if self.scores == 1 or len(factor) == 1:
            return factor
        each = factor.unflatten(0, (-1, 1, batched))
        return each.expand(self.count, self.scores, *each.shape[2:]).flatten(0, 2)

    def constants(self, rows: int) -> Mapping[int, Any]:
        """Everything that rules read beside changed values, for so many rows."""
        if rows not in self._constants:
            graph = self._dependence.graph
            values = {**graph.known, **graph.fixed}
            for step in self._steps:
                values[step.makes] = step.run({**values, **self._changed(step, rows, values)})
            self._constants[rows] = values
        return self._constants[rows]

    def stand_in(self, number: int, rows: int) -> Any:
        """Zeros in the shape of a changed value for so many rows; a tuple of them for a tuple."""
        return self._stand_in(number, rows, self.constants(rows))

    def _stand_in(self, number: int, rows: int, constants: Mapping[int, Any]) -> Any:
        trait = self._dependence.graph.traits[number]
        if trait.shape is None:
            maker = self._dependence.maker(number)
            assert maker is not None
            made = maker.run({**constants, **self._changed(maker, rows, constants)})
            return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, made)
        shape = (rows * (trait.batched or 1), *trait.shape[1:])
        layout = LAYOUTS.get(len(shape)) if self._channels_last else None
        zeros = torch.empty(shape, dtype=trait.dtype, device=self._device, memory_format=layout)
        return zeros.zero_()

    def _changed(self, step: Step, rows: int, constants: Mapping[int, Any]) -> dict[int, Any]:
        read = (number for number in step.reads if number in self._dependence.changed)
        return {number: self._stand_in(number, rows, constants) for number in read}


class _Rows:
    """Which rows are read; without a copy where they lie side by side, once where they are all the same."""

    def __init__(self, index: Tensor, offset: int, device: torch.device) -> None:
        numbers = known(index) + offset
        count = len(numbers)
        self._same = count > 0 and bool((numbers == numbers[0]).all())
        self._run = count > 0 and bool((numbers == numbers[0] + torch.arange(count)).all())
        self._first, self._count = int(numbers[0]) if count else 0, count
        self._index = index.to(device) + offset

    def taken(self, value: Tensor, batched: int) -> Tensor:
        """The rows of a value whose rows have `batched` entries each."""
        if self._run or (self._same and batched == 1):
            count = self._count if self._run else 1
            return value[self._first * batched : (self._first + count) * batched]
        return rows_at(value, self._index, batched)


def rows_at(value: Tensor, index: Tensor, batched: int) -> Tensor:
    """Rows of a value whose rows have `batched` entries each."""
    index = index.to(value.device)
    return value[index] if batched == 1 else value.unflatten(0, (-1, batched))[index].flatten(0, 1)

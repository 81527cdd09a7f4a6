"""The gradients that are under way in a backward: summed up per value, in place where nobody else looks at them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from xai_fast.graph.fused import Strided

_MANY = 1 << 30  # holders of a tensor that is never ours alone


class Held:
    """A gradient, and how many places hold on to it. A single holder may write into it.

    Attributes:
        tensor: the gradient.
        holders: how many places hold it.
    """

    __slots__ = ("holders", "tensor")

    def __init__(self, tensor: Tensor, *, own: bool = True) -> None:
        self.tensor, self.holders = tensor, 1 if own else _MANY

    @property
    def own(self) -> bool:
        """Whether it may be written into."""
        return self.holders == 1

    def share(self) -> Held:
        """The same, held in one more place."""
        self.holders += 1
        return self

    def release(self) -> None:
        """One place lets go of it."""
        self.holders -= 1

    def replaced(self, tensor: Tensor) -> Held:
        """Lets go of this one in exchange for a tensor of ours; itself where that is its own, written into."""
        if tensor is self.tensor:
            return self
        self.release()
        return Held(tensor)


@dataclass
class _Joined:
    """The gradient of values that lie side by side along the channels.

    Attributes:
        values: in order.
        channels: of each.
        held: the gradient (rows, all channels, ...).
    """

    values: tuple[int, ...]
    channels: tuple[int, ...]
    held: Held

    def continues(self, values: tuple[int, ...]) -> bool:
        """Whether these values are the first of its own, and it may be written into."""
        return self.held.own and self.values[: len(values)] == values

    def parts(self, value: int) -> list[Tensor]:
        """The gradients of a value, as often as it occurs."""
        ends = list(accumulate(self.channels))
        return [
            self.held.tensor.narrow(1, end - size, size)
            for own, end, size in zip(self.values, ends, self.channels, strict=True)
            if own == value
        ]


class Gradients:
    """Gradients by value.

    Args:
        wanted: values whose gradients are to be found at the end.

    Attributes:
        found: the gradients of the wanted values, as far as they have been taken.
    """

    def __init__(self, wanted: Collection[int]) -> None:
        self._wanted = wanted
        self._dense: dict[tuple[int, int], Held] = {}
        self._strided: dict[int, list[Strided]] = {}
        self._joined: dict[int, list[_Joined]] = {}
        self.found: dict[int, Tensor] = {}

    def add(self, value: int, held: Held, part: int = 0) -> None:
        """Adds a gradient to what there is; `part` counts the tensors of a value that is several."""
        there = self._dense.get((value, part))
        if there is None:
            self._dense[value, part] = held
        elif there.own:
            there.tensor.add_(held.tensor)
            held.release()
        elif held.own:
            held.tensor.add_(there.tensor)
            there.release()
            self._dense[value, part] = held
        else:
            self._dense[value, part] = Held(there.tensor + held.tensor)
            there.release()
            held.release()

    def add_strided(self, value: int, strided: Strided) -> None:
        """Adds a gradient at every few positions; it waits until the value is taken."""
        self._strided.setdefault(value, []).append(strided)

    def add_joined(self, values: tuple[int, ...], channels: tuple[int, ...], held: Held) -> None:
        """Adds the gradient of values side by side; where others have joined the same and more, in one sum."""
        for joined in self._joined.get(values[0], ()):
            if joined.continues(values):
                joined.held.tensor.narrow(1, 0, sum(channels)).add_(held.tensor)
                held.release()
                return
        joined = _Joined(values, channels, held)
        for value in {*values}:
            self._joined.setdefault(value, []).append(joined)

    def place(self, value: int) -> Held | None:
        """A gradient of the value that is there already, channels-last and ours to add to."""
        held = self._dense.get((value, 0))
        fits = held is not None and held.own and held.tensor.is_contiguous(memory_format=torch.channels_last)
        return held if fits else None

    def take(self, value: int, part: int = 0) -> Held | None:
        """The whole gradient of a value, which whoever takes it now holds; None where none arrived."""
        for joined in self._joined.pop(value, ()):
            for tensor in joined.parts(value):
                self.add(value, Held(tensor, own=False))
        held = self._dense.pop((value, part), None)
        for strided in self._strided.pop(value, []):
            held = _spread(strided, held)
        if held is not None and value in self._wanted:
            self.found[value] = held.share().tensor
        return held


def _spread(strided: Strided, held: Held | None) -> Held:
    """The strided gradient added to a dense one."""
    tensor, (high, wide) = strided.tensor, strided.stride
    if held is None:
        shape = (len(tensor), *strided.shape)
        whole = torch.empty(shape, dtype=tensor.dtype, device=tensor.device, memory_format=torch.channels_last)
        held = Held(whole.zero_())
    elif not held.own:
        held = held.replaced(held.tensor.clone())
    height, width = tensor.shape[2:]
    # A stride may leave out the last positions.
    held.tensor[:, :, : high * height : high, : wide * width : wide].add_(tensor)
    return held

"""The gradients that are under way in a backward: summed up per value, in place where nobody else looks at them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class Sparse:
    """A gradient that is zero except at every `stride`-th position.

    Attributes:
        tensor: (rows, C, h, w) at those positions.
        stride: (height, width).
        shape: (C, H, W) of the whole.
    """

    tensor: Tensor
    stride: tuple[int, int]
    shape: tuple[int, ...]


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
        self._sparse: dict[int, list[Sparse]] = {}
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

    def add_sparse(self, value: int, sparse: Sparse) -> None:
        """Adds a gradient at every few positions; it waits until the value is taken."""
        self._sparse.setdefault(value, []).append(sparse)

    def place(self, value: int) -> Held | None:
        """A gradient of the value that is there already, channels-last and ours to add to."""
        held = self._dense.get((value, 0))
        fits = held is not None and held.own and held.tensor.is_contiguous(memory_format=torch.channels_last)
        return held if fits else None

    def take(self, value: int, part: int = 0) -> Held | None:
        """The whole gradient of a value, which whoever takes it now holds; None where none arrived."""
        held = self._dense.pop((value, part), None)
        for sparse in self._sparse.pop(value, []):
            held = _spread(sparse, held)
        if held is not None and value in self._wanted:
            self.found[value] = held.share().tensor
        return held


def _spread(sparse: Sparse, held: Held | None) -> Held:
    """The sparse gradient added to a dense one."""
    tensor, (high, wide) = sparse.tensor, sparse.stride
    if held is None:
        shape = (len(tensor), *sparse.shape)
        whole = torch.empty(shape, dtype=tensor.dtype, device=tensor.device, memory_format=torch.channels_last)
        held = Held(whole.zero_())
    elif not held.own:
        held = held.replaced(held.tensor.clone())
    height, width = tensor.shape[2:]
    # A stride may leave out the last positions.
    held.tensor[:, :, : high * height : high, : wide * width : wide].add_(tensor)
    return held

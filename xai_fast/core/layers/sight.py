"""Whether autograd saw all that a forward did to its values: of what went past it, its record says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from xai_fast.core.borrowed import seeing_operators

_get_sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr  # pyright: ignore[reportAttributeAccessIssue]
_DETACH = torch.ops.aten.detach.default
_WITHOUT_VALUES = re.compile(r"aten::(new_\w+|\w+_like|lift_fresh)(\.\w+)?")  # they return nothing of what they get

_PLAIN = frozenset((list, tuple, int, float, bool, type(None)))


class Sight:
    """Looks on at the operators of one forward, for values that go on beside autograd's record.

    Those are: what was taken out of it (`.data`, `detach`), computed without gradients, or is without them by its kind
    (comparisons, indices), and is used further, by NumPy as well; and tensors that hold something else than their
    operator returned (`x.data = y`, a storage that was exchanged). Who writes through a bare pointer, or makes tensors
    of Python's numbers, is not seen.

    Args:
        leaf: its input, from which autograd's record begins.

    Attributes:
        lost: whether any was seen, or something that cannot be told from it.
        touched: whether some tensor may hold something else than it did when it was returned.
    """

    def __init__(self, leaf: Tensor) -> None:
        self.lost = self.touched = False
        self._memory = {_address(leaf)}  # where anything lies that is made of the input
        self._made: dict[int, list[int]] = {}  # where results lie, by the number of autograd's record
        self._next = self._before = _get_sequence_number()  # its next number; that one operator ago

    @contextmanager
    def on(self) -> Iterator[None]:
        """Looks on inside."""
        with seeing_operators(self._look):
            yield

    def _look(self, func: Any, args: Any, kwargs: Any, returned: Any) -> None:
        if self.touched:
            return
        depends = False
        for one in _tensors((*args, *kwargs.values()) if kwargs else args):
            place = _address(one)
            if one.requires_grad:
                depends |= self._compared(one, place)
            elif place in self._memory:
                self.lost = True
                self.touched |= torch.is_grad_enabled() or func is _DETACH  # as on the way to NumPy
        returned_to = [_address(one) for one in _tensors((returned,))]
        before, self._before, self._next = self._before, self._next, _get_sequence_number()
        if not depends or _without_values(func.name()):
            self._memory.difference_update(returned_to)  # given back, and taken anew
            return
        self.lost |= not torch.is_grad_enabled()
        self._memory.update(returned_to)
        # What is written into may be copied first, by an operator of its own, after the record of the writing began.
        for number in range(before if returned is args[0] else self._before, self._next):
            self._made[number] = returned_to

    def _compared(self, tensor: Tensor, place: int) -> bool:
        """Whether a tensor depends on the input; notes where it lies elsewhere than what autograd says it is."""
        inside, node = place in self._memory, tensor.grad_fn
        places = () if node is None else self._made.get(node._sequence_nr(), ())
        if node is not None and place not in places and (inside or places):
            self.lost = True
            self.touched |= bool(places)  # else autograd made anew what it says of a view
        return inside


def _tensors(values: Any) -> list[Tensor]:
    """Those among an operator's arguments, or results."""
    found: list[Tensor] = []
    for value in values:
        kind = type(value)
        if kind is Tensor or (kind not in _PLAIN and isinstance(value, Tensor)):
            found.append(value)
        elif kind is list or kind is tuple:
            found += [part for part in value if isinstance(part, Tensor)]
    return found


@cache
def _without_values(operator: str) -> bool:
    return _WITHOUT_VALUES.fullmatch(operator) is not None


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except NotImplementedError:  # a sparse one
        return id(tensor)

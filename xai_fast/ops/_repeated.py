"""Calls of one op again and again, with maps that differ in what they hold and in nothing else.

What an op looks at before its kernel runs takes as long as the kernel itself where maps are small, and a network calls
dozens of them. For calls of one kind it is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from xai_fast.ops._dispatch import Op
from xai_fast.ops._panels import register_panel

_MOST = 256  # kinds that are remembered


class Repeated:
    """An op whose arguments are always the same but for some maps, and for what is made from those.

    Args:
        op: that is called.
        function: its public function, which checks everything.
    """

    def __init__(self, op: Op, function: Callable[..., Any]) -> None:
        self._op, self._function = op, function
        self._kinds: set[tuple[Any, ...]] = set()  # of what was read
        self._calls: set[tuple[Any, ...]] = set()  # and of what was written

    def knows(self, *maps: Tensor | None) -> bool:
        """Whether the kernel took such maps before, and may run now."""
        return kind_of(maps) in self._kinds and self._op.kernel() is not None

    def __call__(self, maps: Sequence[Tensor | None], out: Tensor, *args: Any) -> None:
        """Calls the op.

        Args:
            maps: of the arguments, those that come from elsewhere.
            out: what is written: one of them, or new, as everything else that is written.
            args: of the op.
        """
        kind = kind_of(maps)
        call = None if kind is None else (*kind, out.shape)
        kernel = self._op.kernel() if call in self._calls and _apart(maps, out) else None
        if kernel is not None:
            kernel(*args)
            increment_version(out)
            return
        self._function(*args)
        if kind is not None and call is not None and len(self._calls) < _MOST and self._op.compiled(*args):
            self._kinds.update({kind, kind_of(maps[:1]) or kind})
            self._calls.add(call)


def kind_of(maps: Sequence[Tensor | None]) -> tuple[Any, ...] | None:
    """All that a kernel has to know of maps but their numbers; None where one is not just numbers, channels last."""
    found: list[Any] = []
    for each in maps:
        if each is None:
            found.append(None)
        elif type(each) is Tensor and _is_plain(each):
            found += (each.dtype, each.shape)
        else:
            return None
    return (*found, register_panel(found[0]))


def _is_plain(value: Tensor) -> bool:
    if not (value.is_cpu and value.layout is torch.strided) or value.is_neg() or value._is_zerotensor():
        return False
    return value.is_contiguous(memory_format=torch.channels_last if value.dim() == 4 else torch.contiguous_format)


def _apart(maps: Sequence[Tensor | None], out: Tensor) -> bool:
    """Whether nothing that is read lies where something is written, unless it is the very tensor."""
    if not any(each is out for each in maps):
        return True
    block = out.untyped_storage().data_ptr()
    return sum(each is not None and each.untyped_storage().data_ptr() == block for each in maps) == 1

"""When fused operators may run: the ReLU of some answers 0 for NaN, so they run only where none can come up.

Where every input of a step is of ordinary size, no sum in it can overflow, and neither NaN nor Inf arises. Sizes are
bounded when steps are fused (see `magnitudes`), and measured at the few steps where the bound would grow too large.
Once a measured value is not of ordinary size, what follows in that run goes through the public operators, which lose
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

ORDINARY = 1e9  # the largest magnitude that counts as ordinary; its square stays far from overflow
LIMIT = 1e36  # what sums may reach; minimal filtering works with up to 64 times that


class _State(threading.local):
    careful = False


_state = _State()


@contextmanager
def run(*, careful: bool = False) -> Iterator[None]:
    """One run of steps that were fused together: nothing has been measured yet; `careful`: as if in vain."""
    before, _state.careful = _state.careful, careful
    try:
        yield
    finally:
        _state.careful = before


@dataclass(frozen=True)
class Care:
    """What a fused step needs to know of its inputs.

    Attributes:
        measured: which of them are measured when it runs; the others are bounded by what was measured before.
        bound: what it adds up stays below this, before its activation; infinite where weights allow no bound.
    """

    measured: tuple[int, ...]
    bound: float

    def suffices(self, *inputs: Tensor) -> bool:
        """Whether nothing can overflow in the step, and nothing did before it in this run."""
        if not _state.careful:
            ordinary = self.bound <= LIMIT and all(within(inputs[position], ORDINARY) for position in self.measured)
            _state.careful = not ordinary
        return not _state.careful


def expect(x: Tensor, most: float) -> None:
    """Measures a result that what follows takes to be smaller than `most`; in vain, and what follows takes care."""
    _state.careful = _state.careful or not within(x, most)


def within(x: Tensor, most: float) -> bool:
    """Whether no magnitude in `x` is above `most`, and none is NaN."""
    x = x.detach()
    if x.numel() == 0:
        return True
    if x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        x = x.as_strided((x.numel(),), (1,), x.storage_offset())
        # The norm is several times faster than the largest, but in bfloat16.
        if x.dtype is torch.float32 and torch.dot(x, x).item() <= min(most, 1e18) ** 2:
            return True
    low, high = torch.aminmax(x)
    return low.item() >= -most and high.item() <= most

"""Linear layers prepacked by oneDNN, where that is faster than the public operator."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from xai_fast.graph.deadline import out_of_time
from xai_fast.graph.fused.parts import NOTHING, Activation
from xai_fast.graph.fused.public import Linear
from xai_fast.graph.processor import said
from xai_fast.graph.timed import decided, record

from .convolution import form_of, pointwise, usable

_QUESTION = "packed linear layers"
_MOST_SHAPES = 4  # packed copies of one weight that are kept, where they cannot be told apart
_MOST_CHOICES = 64  # sizes of batches for which it is remembered what is faster
_WORTH_PACKING = 0.95  # of the plain operator's time, where the two are timed against each other
_OFTEN = 4  # calls of one size before the two are timed, which takes as long as ten
_MOST_TIMED = 4096  # comparisons that are remembered
# By sizes, of which a network has many layers: whether packing pays, and how often that would have been good to know.
_pays: dict[tuple[Any, ...], bool] = {}
_asked: dict[tuple[Any, ...], int] = {}


@dataclass(eq=False, repr=False)
class PackedLinear(Linear):
    """A linear layer; prepacked where that was faster when both were timed on what runs.

    They are timed once per process for layers and batches of the same size, and not before one was asked for several
    times: a comparison takes six runs of the layer, and packing as long as three more.
    """

    _choices: dict[tuple[int, Activation], Tensor | None] = field(default_factory=dict)
    _forms: dict[bytes, Tensor] = field(default_factory=dict)

    def forward(self, x: Tensor, activation: Activation = NOTHING) -> Tensor:
        """See `Linear`."""
        rows = x.numel() // max(x.shape[-1], 1)
        if not usable(x, self.weight.dtype) or rows == 0:
            return self.plain(x, activation)
        if (rows, activation) not in self._choices:
            if not self._is_due(rows, activation):
                return self.plain(x, activation)
            self._choose(x, rows, activation)
        packed = self._choices[rows, activation]
        return self.plain(x, activation) if packed is None else self.fused(x, packed, activation)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """See `Linear`."""
        return self._back.forward(gradient)

    def fused(self, x: Tensor, packed: Tensor, activation: Activation) -> Tensor:
        """By oneDNN's operator, with the packed weight."""
        return torch.ops.mkldnn._linear_pointwise(x, packed, self.bias, *pointwise(activation))

    @functools.cached_property
    def _back(self) -> PackedLinear:
        return PackedLinear(self.weight.detach().t(), None)

    def _is_due(self, rows: int, activation: Activation) -> bool:
        """Whether it is time to choose: it is known already, or this size was asked for often."""
        if said().packed is not None:
            return True
        if record().given:  # what it does not hold was not asked often
            return record().get(_QUESTION, self._case(rows, activation)) is not None
        sizes = self._sizes(rows, activation)
        if sizes in _pays:
            return True
        if len(_asked) >= _MOST_TIMED:
            _asked.clear()
        _asked[sizes] = _asked.get(sizes, 0) + 1
        return _asked[sizes] >= _OFTEN

    def _case(self, rows: int, activation: Activation) -> str:
        return f"{rows} x {tuple(self.weight.shape)}, {activation.name}, {torch.get_num_threads()} threads"

    def _sizes(self, rows: int, activation: Activation) -> tuple[Any, ...]:
        return (rows, *self.weight.shape, self.bias is None, activation, torch.get_num_threads())

    def _choose(self, x: Tensor, rows: int, activation: Activation) -> None:
        if len(self._choices) >= (_MOST_CHOICES if self._forms else _MOST_SHAPES):
            self._choices.pop(next(iter(self._choices)))
        pays = said().packed
        if pays is None:
            case = self._case(rows, activation)
            pays = decided(_QUESTION, case, lambda: self._packing_pays(x, rows, activation), lambda: False)
        self._choices[rows, activation] = self._packed(rows) if pays else None

    def _packing_pays(self, x: Tensor, rows: int, activation: Activation) -> bool:
        sizes = self._sizes(rows, activation)
        if sizes not in _pays and out_of_time():
            return False
        if sizes not in _pays:
            if len(_pays) >= _MOST_TIMED:
                _pays.clear()
            packed = self._packed(rows)
            plain, fused = (
                _fastest(lambda: self.plain(x, activation)),
                _fastest(lambda: self.fused(x, packed, activation)),
            )
            _pays[sizes] = fused < _WORTH_PACKING * plain
        return _pays[sizes]

    def _packed(self, rows: int) -> Tensor:
        """The weight packed for so many rows; most numbers want the same form, which is then kept once."""
        packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().contiguous(), rows)
        form = form_of(packed)
        return packed if form is None else self._forms.setdefault(form, packed)


def _fastest(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(2):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)

"""Linear layers and self-attention with what follows them in one call, through oneDNN where that is faster."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .care import Care
from .onednn import NOTHING, Activation, gain, usable
from .processor import said

_MOST_SHAPES = 4  # packed copies of one weight that are kept
_WORTH_PACKING = 0.95  # of the plain operator's time, where the two are timed against each other
_MOST_TIMED = 4096  # comparisons that are remembered
_pays: dict[tuple[Any, ...], bool] = {}  # whether packing does, by sizes: a network has many layers of the same


@dataclass(eq=False, repr=False)
class FusedLinear:
    """y = activation(linear(x)); prepacked where that was faster when both were timed on what runs.

    They are timed once per process for layers and batches of the same size: a comparison takes six runs of the layer.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Activation = NOTHING
    care: Care | None = None  # as in `FusedConvolution`
    _choices: dict[int, Tensor | None] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (..., in)."""
        rows = x.numel() // max(x.shape[-1], 1)
        safe = self.care is None or self.care.suffices(x)
        if not (safe and usable(x)) or rows == 0:
            return self._plain(x)
        if rows not in self._choices:
            self._choose(x, rows)
        packed = self._choices[rows]
        return self._plain(x) if packed is None else self._fused(x, packed)

    @functools.cached_property
    def gain(self) -> tuple[float, float]:
        """See `onednn.gain`."""
        return gain(self.weight, self.bias)

    def _plain(self, x: Tensor) -> Tensor:
        return self.activation(F.linear(x, self.weight, self.bias))

    def _fused(self, x: Tensor, packed: Tensor) -> Tensor:
        done = self.activation
        return torch.ops.mkldnn._linear_pointwise(x, packed, self.bias, done.name, done.scalars, done.algorithm)

    def _choose(self, x: Tensor, rows: int) -> None:
        if len(self._choices) >= _MOST_SHAPES:
            self._choices.pop(next(iter(self._choices)))
        pays = said().packed
        if pays is None:
            pays = self._packing_pays(x, rows)
        self._choices[rows] = self._packed(rows) if pays else None

    def _packing_pays(self, x: Tensor, rows: int) -> bool:
        sizes = (rows, *self.weight.shape, self.bias is None, self.activation, torch.get_num_threads())
        if sizes not in _pays:
            if len(_pays) >= _MOST_TIMED:
                _pays.clear()
            packed = self._packed(rows)
            plain, fused = _fastest(lambda: self._plain(x)), _fastest(lambda: self._fused(x, packed))
            _pays[sizes] = fused < _WORTH_PACKING * plain
        return _pays[sizes]

    def _packed(self, rows: int) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().contiguous(), rows)


@dataclass(eq=False, repr=False)
class FusedAttention:
    """Self-attention over (rows, tokens, width) with its two linear layers fused; returns (output, None)."""

    inward: FusedLinear
    outward: FusedLinear
    heads: int
    care: Care | None = None  # as in `FusedConvolution`, of what nothing here would hide

    def __call__(self, query: Tensor, *_same: Tensor) -> tuple[Tensor, None]:
        """`query` is key and value as well."""
        if self.care is not None:
            self.care.suffices(query)
        rows, tokens, width = query.shape
        projected = self.inward(query).view(rows, tokens, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, tokens, width)
        return self.outward(mixed), None


def _fastest(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(2):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)

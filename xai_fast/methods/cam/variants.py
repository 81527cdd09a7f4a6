"""The family's formulas as pytorch_grad_cam 1.5 has them, where they differ from the papers' that `formulas` has.

Kept for pipelines that rely on its numbers (`xai_fast.compat.pytorch_grad_cam`); the methods follow the papers:

- A layer's first principal component is centred and has the sign that LAPACK happens to return. (`projection`)
- Ablation-CAM divides by the score, and where a layer's output can be negative it puts numbers far below in place of
  a channel: 10^7 below the least value for the first channel of a batch, and 10^7 further for each that follows in it,
  because it looks for the least value among rows that it has already changed. (`FarBelow`, `ablation_shares`)
- Score-CAM resizes a channel with `align_corners=True`, brings it to [0, 1] afterwards, and takes the softmax of the
  scores themselves. (`score_weights`)
- FullGrad pairs biases, in the order in which modules are registered, with gradients, in the order in which they ran,
  and knows `Conv2d` and `BatchNorm2d` alone. (`full_gradient`)
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xai_fast.core.indices import known
from xai_fast.core.layers import Reading
from xai_fast.core.targets import Target
from xai_fast.engine import Engine
from xai_fast.engine.reducers.cam import resized
from xai_fast.engine.responses import LayerAnswer, falls_under, variant_scores
from xai_fast.engine.samplers.shown import Shown

_FAR = 1e7
_SMALL = 1e-7


def projection(activations: NDArray[np.floating]) -> NDArray[np.float32]:
    """The first principal component of each of (N, C, *s), (N, *s); NaN counts as 0.

    Its sign is that of LAPACK's full decomposition, which the thin one, without the vectors that nobody reads, shares.
    """
    found = []
    for one in np.where(np.isnan(activations), np.zeros((), activations.dtype), activations):
        table = one.reshape(len(one), -1).T
        table = table - table.mean(axis=0)
        with _by_one_thread():
            first = np.linalg.svd(table, full_matrices=False)[2][0]
        found.append((table @ first).reshape(one.shape[1:]))
    return np.asarray(found, np.float32)


_LOCK = threading.Lock()  # whoever asks for one thread while another does would put that back


@contextmanager
def _by_one_thread() -> Iterator[None]:
    """NumPy's own linear algebra computes in this thread alone, where it can be told.

    Its threads and torch's wait for work by asking again and again, each in the way of the other: what takes 10 ms
    takes 100 and more.
    """
    threads = _threads()
    if threads is None:
        yield
        return
    with _LOCK, threads.limit(limits=1):
        yield


@functools.cache
def _threads() -> Any:
    """What tells NumPy's OpenBLAS how many threads it may have; None where there is none, or nobody knows how."""
    try:
        # Of scikit-learn, which grad-cam brings.
        from threadpoolctl import ThreadpoolController  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return ThreadpoolController().select(internal_api="openblas")


def projection_upwards(activations: NDArray[np.floating]) -> NDArray[np.float32]:
    """`projection` turned over where its least value is larger than its greatest."""
    found = projection(activations)
    for one in found:
        if abs(one.min()) > abs(one.max()):
            np.negative(one, out=one)
    return found


@dataclass(frozen=True)
class FarBelow:
    """Variant k: channel k is zero where the layer's least value is zero, and far below everything where it is not.

    Attributes:
        batch: after so many channels the depth begins anew.
        axis: of the channels, whatever a grid makes of them.
    """

    batch: int
    axis: int

    def count(self, activation: Tensor, reading: Reading) -> int:
        """One per channel."""
        return activation.shape[self.axis]

    def write(self, numbers: Tensor, out: Tensor, reading: Reading) -> None:
        """Sets one channel of each row."""
        least = out[0].min()
        values = torch.zeros(len(numbers), dtype=out.dtype)
        if least != 0:
            # Added up one by one, as float32 rounds on the way.
            depths = [least.cpu()]
            own = known(numbers) % self.batch
            for _ in range(int(own.max()) + 1):
                depths.append(depths[-1] - _FAR)
            values = torch.stack(depths[1:])[own]
        channels = out.movedim(self.axis, 1)
        where = (torch.arange(len(numbers), device=out.device), numbers.to(out.device))
        channels[where] = values.to(out).view(-1, *[1] * (out.ndim - 2))

    def silenced(self, numbers: Tensor, activation: Tensor, reading: Reading) -> Tensor | None:
        """The channels, where they lie on axis 1 and zero is put in their place."""
        return numbers if self.axis == 1 and not activation.flatten(1).amin(1).any() else None


def ablation_shares(
    engine: Engine, layer: str, reading: Reading, change: FarBelow, inputs: Tensor, target: Target
) -> Tensor:
    """Which share of its score each of N inputs loses with each channel: (N, C)."""
    scores, falls = falls_under(engine, layer, reading, change, inputs, target)
    return falls / scores[:, None].to(falls)


def score_weights(engine: Engine, activations: Tensor, inputs: Tensor, target: Target) -> Tensor:
    """Weights (N, C) of the channels of activations (N, C, h, w): the softmax of what the model says through each.

    Args:
        engine: of the model.
        activations: of the layer.
        inputs: (N, C, H, W).
        target: one of each input.
    """
    found = [maps.flatten(1).unique(dim=0, return_inverse=True) for maps in activations]
    grids = [distinct.view(-1, *activations.shape[2:]) for distinct, _ in found]
    scores = variant_scores(engine, lambda own: Shown(own, grids, _enlarged), inputs, target)
    of_each = torch.split_with_sizes(scores, [len(grid) for grid in grids])
    weights = [own.float()[of_channel].softmax(0) for own, (_, of_channel) in zip(of_each, found, strict=True)]
    return torch.stack(weights)


def _enlarged(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resized, and then from 0 to 1."""
    large = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=True)
    low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
    return (large - low) / (high - low + 1e-8)


def full_gradient(answers: Sequence[LayerAnswer], biases: Sequence[Tensor]) -> Tensor:
    """Maps (N, 1, H, W): magnitudes of input times gradient, and of biases times gradients, each channel in [0, 1].

    Args:
        answers: of the input, then of the modules in the order in which they ran.
        biases: (C,) of each of the modules, in the order in which they are paired.
    """
    own = answers[0]
    assert own.gradient is not None
    total = _in_range(own.activation * own.gradient).sum(1, keepdim=True)
    size = tuple(total.shape[2:])
    sums: dict[tuple[int, ...], Tensor] = {}  # of one size: resizing is linear
    for answer, bias in zip(answers[1:], biases, strict=True):
        assert answer.gradient is not None
        found = _in_range(bias.to(answer.gradient).view(1, -1, 1, 1) * answer.gradient).sum(1, keepdim=True)
        shape = tuple(found.shape[2:])
        sums[shape] = sums[shape] + found if shape in sums else found
    return sum((resized(found, size) for found in sums.values()), total)


def _in_range(products: Tensor) -> Tensor:
    """Magnitudes, each channel from 0 to 1."""
    magnitudes = products.abs()
    magnitudes = magnitudes - magnitudes.amin((2, 3), keepdim=True)
    return magnitudes / (_SMALL + magnitudes.amax((2, 3), keepdim=True))

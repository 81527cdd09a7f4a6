"""Class activation maps: channels weighted, or positions scored; resized, fused over layers, averaged over passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_fast.core.layers import Reading
from xai_fast.engine.evaluate import Answers, Response
from xai_fast.engine.samplers.augmented import Augmented
from xai_fast.ops import cam_reduce


@dataclass(frozen=True)
class Grid:
    """A layer's response on the layer's grid.

    Attributes:
        activation: (rows, C, *s).
        gradient: (rows, K, C, *s); None where none was asked for.
        falls: (rows, K, V); None where the layer was not changed.
    """

    activation: Tensor
    gradient: Tensor | None
    falls: Tensor | None


# From a layer's response and the size of the map (None: its own) to maps (rows, K, *size).
Draw = Callable[[Grid, tuple[int, ...] | None], Tensor]
# From a layer's response to channel weights (rows, K, C).
Weights = Callable[[Grid], Tensor]


class ClassActivation:
    """Draws a map of every pass and averages the passes of an input.

    Args:
        draw: what the map of one layer and pass is.
        readings: how what each layer returns is a grid.
        n_samples: number of inputs, N.
        size: *S of the inputs.
        native: whether maps stay on the layer's grid (the largest of several).
        fuse: "max" or "mean" over layers.
        variants: the augmented passes, where there are any.
    """

    def __init__(
        self,
        draw: Draw,
        readings: Sequence[Reading],
        *,
        n_samples: int,
        size: Sequence[int],
        native: bool,
        fuse: str,
        variants: Augmented | None,
    ) -> None:
        self._draw, self._readings = draw, tuple(readings)
        self._size, self._native = tuple(size), native
        self._fuse, self._variants = fuse, variants
        self._n_samples = n_samples
        self._total: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Adds the maps of the clean pass."""
        maps = self._maps(answers.responses)
        if self._total is None:
            self._total = maps.new_zeros(self._n_samples, *maps.shape[1:])
        self._total[sample] += maps

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Adds the maps of augmented passes, mirrored ones turned back."""
        assert self._variants is not None
        assert self._total is not None
        maps = self._maps(answers.responses)
        mirrored = self._variants.mirrored(rows)
        maps[mirrored] = maps[mirrored].flip(-1)
        self._total.index_add_(0, self._variants.sample_of(rows).to(maps.device), maps)

    def finish(self) -> Tensor:
        """(N, K, 1, *size)."""
        assert self._total is not None
        passes = 1 if self._variants is None else 1 + self._variants.PER_INPUT
        return (self._total / passes).unsqueeze(2)

    def _maps(self, responses: Sequence[Response]) -> Tensor:
        """(rows, K, *size) of one pass."""
        grids = [grid_of(response, reading) for response, reading in zip(responses, self._readings, strict=True)]
        size = max((tuple(grid.activation.shape[2:]) for grid in grids), key=lambda s: torch.Size(s).numel())
        size = size if self._native else self._size
        maps = [self._draw(grid, None if size == tuple(grid.activation.shape[2:]) else size) for grid in grids]
        if len(maps) == 1:
            return maps[0]
        stacked = torch.stack(maps)
        return stacked.amax(0) if self._fuse == "max" else stacked.mean(0)


def grid_of(response: Response, reading: Reading) -> Grid:
    """A layer's response on its grid."""
    gradient = response.gradient
    if gradient is not None:
        gradient = reading(gradient.flatten(0, 1)).unflatten(0, gradient.shape[:2])
    return Grid(reading(response.activation), gradient, response.falls)


def weighted_channels(weights: Weights, *, eigen: bool) -> Draw:
    """ReLU(Σ_k w_k A_k), or with `eigen` the first principal component of the w_k A_k in place of their sum."""

    def draw(grid: Grid, size: tuple[int, ...] | None) -> Tensor:
        per_channel = weights(grid)
        if not eigen:
            return cam_reduce(grid.activation, per_channel, relu=True, size=size)
        return _resized(principal_map(grid.activation, per_channel), size, relu=True)

    return draw


def scored_positions(grid: Grid, size: tuple[int, ...] | None) -> Tensor:
    """How far the score rises from nothing when one position is revealed; the last change reveals nothing."""
    assert grid.falls is not None
    rises = grid.falls[:, :, -1:] - grid.falls[:, :, :-1]
    return _resized(rises.view(*rises.shape[:2], *grid.activation.shape[2:]), size, relu=False)


def _resized(maps: Tensor, size: tuple[int, ...] | None, *, relu: bool) -> Tensor:
    """Maps (rows, K, *s), rectified where asked, then resized."""
    one = maps.new_ones(len(maps), 1, 1)
    return torch.cat([cam_reduce(maps[:, k, None], one, relu=relu, size=size) for k in range(maps.shape[1])], dim=1)


def principal_map(activation: Tensor, weights: Tensor) -> Tensor:
    """The weighted activations' projection on their first principal component over positions: (rows, K, *s).

    Its sign, which the decomposition leaves open, is chosen so that it correlates positively with the channels' sum.
    """
    weighted = activation[:, None].flatten(3).double() * weights[..., None].double()  # (rows, K, C, positions)
    total = weighted.sum(2)
    centred = weighted - weighted.mean(3, keepdim=True)
    # A decomposition of one row with NaN would fail for all; the loop has already named that row.
    centred = torch.where(centred.isfinite().all(3).all(2)[..., None, None], centred, 0.0)
    # The smaller Gram matrix: late layers have few positions and many channels, early ones the reverse.
    if centred.shape[3] <= centred.shape[2]:
        values, vectors = torch.linalg.eigh(centred.transpose(2, 3) @ centred)
        component = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        vectors = torch.linalg.eigh(centred @ centred.transpose(2, 3)).eigenvectors
        component = (vectors[..., None, :, -1] @ centred)[..., 0, :]
    agreement = (component * (total - total.mean(2, keepdim=True))).sum(2, keepdim=True)
    component = torch.where(agreement < 0, -component, component)
    return component.view(*component.shape[:2], *activation.shape[2:]).to(activation.dtype)

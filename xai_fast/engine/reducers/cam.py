"""Class activation maps: channels weighted, or positions scored; resized, fused over layers, averaged over passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from xai_fast.core.indices import beside
from xai_fast.core.layers import Axes, Reading
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
        curvature: (rows, K, C, *s), the scores' Hessian times the activation; None where it was not asked for.
        targets: K.
        keys: LongTensor (rows,), by which draws made for the rows are keyed.
        place: of the layer among those that are looked at.
    """

    activation: Tensor
    gradient: Tensor | None
    falls: Tensor | None
    curvature: Tensor | None = None
    targets: int = 1
    keys: Tensor | None = None
    place: int = 0


# From a layer's response and the size of the map (None: its own) to maps (rows, K, *size).
Draw = Callable[[Grid, tuple[int, ...] | None], Tensor]
# From a layer's response to weights of channels (rows, K, C), or of channels at each position (rows, K, C, *s).
Weights = Callable[[Grid], Tensor]
# From a layer's response to maps (rows, K, *s) on its grid.
Plane = Callable[[Grid], Tensor]
Fuse = Literal["max", "mean", "sum", "product"]


class ClassActivation:
    """Draws a map of every pass and averages the passes of an input.

    Args:
        draw: what the map of one layer and pass is.
        readings: how what each layer returns is a grid; None: as it is, (rows, C, *s).
        n_samples: number of inputs, N.
        size: *S of the inputs.
        native: whether maps stay on the layer's grid (the largest of several).
        fuse: how the maps of several layers become one.
        variants: the augmented passes, where there are any.
        ids: LongTensor (N,), by which what is drawn for each input is keyed; None: 0 for all.
    """

    def __init__(
        self,
        draw: Draw,
        readings: Sequence[Reading] | None,
        *,
        n_samples: int,
        size: Sequence[int],
        native: bool,
        fuse: Fuse,
        variants: Augmented | None,
        ids: Tensor | None = None,
    ) -> None:
        self._draw, self._readings = draw, readings
        self._size, self._native = tuple(size), native
        self._fuse: Fuse = fuse
        self._variants, self._ids = variants, ids
        self._n_samples = n_samples
        self._total: Tensor | None = None

    def clean(self, sample: Tensor, answers: Answers) -> None:
        """Adds the maps of the clean pass."""
        maps = self._maps(answers, sample)
        if self._total is None:
            self._total = maps.new_zeros(self._n_samples, *maps.shape[1:])
        self._total[sample] += maps

    def update(self, rows: Tensor, answers: Answers) -> None:
        """Adds the maps of augmented passes, mirrored ones turned back."""
        assert self._variants is not None
        assert self._total is not None
        sample = self._variants.sample_of(rows)
        maps = self._maps(answers, sample)
        mirrored = self._variants.mirrored(rows).to(maps.device).view(-1, *[1] * (maps.ndim - 1))
        maps = torch.where(mirrored, maps.flip(-1), maps)
        self._total.index_add_(0, sample.to(maps.device), maps)

    def finish(self) -> Tensor:
        """(N, K, 1, *size)."""
        assert self._total is not None
        passes = 1 if self._variants is None else 1 + self._variants.PER_INPUT
        return (self._total / passes).unsqueeze(2)

    def _maps(self, answers: Answers, sample: Tensor) -> Tensor:
        """(rows, K, *size) of one pass."""
        keys = torch.zeros_like(sample) if self._ids is None else beside(self._ids, sample)[sample]
        readings = self._readings or [Axes(1)] * len(answers.responses)
        grids = [
            replace(grid_of(response, reading), targets=answers.scores.shape[1], keys=keys, place=place)
            for place, (response, reading) in enumerate(zip(answers.responses, readings, strict=True))
        ]
        size = max((tuple(grid.activation.shape[2:]) for grid in grids), key=lambda s: torch.Size(s).numel())
        return fused(grids, self._draw, size if self._native else self._size, self._fuse)


def fused(grids: Sequence[Grid], draw: Draw, size: tuple[int, ...], fuse: Fuse) -> Tensor:
    """One map (rows, K, *size) of several layers' maps, each drawn and resized."""

    def at(grid: Grid) -> Tensor:
        return draw(grid, None if size == tuple(grid.activation.shape[2:]) else size)

    if fuse == "sum":
        # Resizing is linear, so that maps of one size are added up before they are resized.
        sums: dict[tuple[int, ...], Tensor] = {}
        for grid in grids:
            own, shape = draw(grid, None), tuple(grid.activation.shape[2:])
            sums[shape] = sums[shape] + own if shape in sums else own
        return sum((resized(own, None if size == shape else size) for shape, own in sums.items()), torch.zeros(()))
    total = at(grids[0])
    for grid in grids[1:]:
        other = at(grid)
        total = torch.maximum(total, other) if fuse == "max" else total * other if fuse == "product" else total + other
    return total / len(grids) if fuse == "mean" else total


def grid_of(response: Response, reading: Reading) -> Grid:
    """A layer's response on its grid."""

    def per_target(values: Tensor | None) -> Tensor | None:
        return None if values is None else reading(values.flatten(0, 1)).unflatten(0, values.shape[:2])

    gradient, curvature = per_target(response.gradient), per_target(response.curvature)
    return Grid(reading(response.activation), gradient, response.falls, curvature)


def weighted_channels(weights: Weights, *, eigen: bool = False, relu: bool = True) -> Draw:
    """ReLU(Σ_k w_k A_k), or with `eigen` the first principal component of the w_k A_k in place of their sum."""

    def draw(grid: Grid, size: tuple[int, ...] | None) -> Tensor:
        found, activation = weights(grid), grid.activation
        if found.ndim == 3 and not eigen:
            return cam_reduce(activation, found, relu=relu, size=size)
        if found.ndim == 3:
            found = found.view(*found.shape, *[1] * (activation.ndim - 2))
        weighted = wide(found) * wide(activation)[:, None]
        own = principal_map(weighted).to(weighted.dtype) if eigen else weighted.sum(2)
        return resized(own, size, relu=relu)

    return draw


def planes(plane: Plane, *, relu: bool = True) -> Draw:
    """A map of a formula's own, rectified where asked."""
    return lambda grid, size: resized(plane(grid), size, relu=relu)


def wide(values: Tensor) -> Tensor:
    """The values in float32 or wider, in which sums are taken."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def scored_positions(grid: Grid, size: tuple[int, ...] | None) -> Tensor:
    """How far the score rises from nothing when one position is revealed; the last change reveals nothing."""
    assert grid.falls is not None
    rises = grid.falls[:, :, -1:] - grid.falls[:, :, :-1]
    return resized(rises.view(*rises.shape[:2], *grid.activation.shape[2:]), size, relu=False)


def resized(maps: Tensor, size: tuple[int, ...] | None, *, relu: bool = False) -> Tensor:
    """Maps (rows, K, *s), rectified where asked, then resized."""
    if size is None:
        return maps.relu() if relu else maps
    alone = maps.flatten(0, 1)[:, None]
    return cam_reduce(alone, maps.new_ones(len(alone), 1, 1), relu=relu, size=size).view(*maps.shape[:2], *size)


def principal_map(features: Tensor, *, centred: bool = True) -> Tensor:
    """The first principal direction of the channels of features (rows, K, C, *s), and where it lies: (rows, K, *s).

    In float64. The sign, which the decomposition leaves open, makes it correlate positively with the channels' sum.

    Args:
        features: whose channels are the coordinates of each position.
        centred: whether the mean over positions is taken away before.
    """
    table = features.double().flatten(3)
    total = table.sum(2)
    table = table - table.mean(3, keepdim=True) if centred else table
    # A decomposition of one row with NaN would fail for all; the loop has already named that row.
    table = torch.where(table.isfinite().all(3).all(2)[..., None, None], table, 0.0)
    # The smaller Gram matrix: late layers have few positions and many channels, early ones the reverse.
    if table.shape[3] <= table.shape[2]:
        values, vectors = torch.linalg.eigh(table.mT @ table)
        component = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        vectors = torch.linalg.eigh(table @ table.mT).eigenvectors
        component = (vectors[..., None, :, -1] @ table)[..., 0, :]
    return agreeing(component, total).view(*features.shape[:2], *features.shape[3:])


def agreeing(component: Tensor, total: Tensor) -> Tensor:
    """The component (..., positions), turned over where it correlates negatively with `total`."""
    agreement = (component * (total - total.mean(-1, keepdim=True))).sum(-1, keepdim=True)
    return torch.where(agreement < 0, -component, component)

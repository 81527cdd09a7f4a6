"""How the positions of layers answer to the input: bands of it are changed, and which numbers of a layer move is seen.

Proportions do not tell an axis of positions from one of channels, or patches from class, register and query tokens;
this does. Every element of an activation gets a coordinate along each axis of the input: the mean position of the bands
that move it, weighted by how much each does. Where positions lie on a grid, these coordinates rise along it. What moves
everything alike, as attention does, draws all coordinates to the centre and leaves their order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .grids import Axes, Grid, Reading, Tokens, candidates
from .places import Take, at_layers

BANDS = 4  # per axis of the input

# What these return is (N, C, *s) by what they compute, whether or not anything answers.
CHANNELS_FIRST = tuple(
    getattr(nn, f"{kind}{axes}d")
    for kind in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm", "MaxPool", "AvgPool")
    for axes in (1, 2, 3)
)
MOST_IN_FRONT = 16  # class and register tokens
_MOST_LAGS = 64
_MOST_ASIDE = 300
_BEAM = 96
_CLEAR = 0.5  # the least correlation of coordinates with a grid that is believed
_PLAIN = 0.3  # how far coordinates spread, of 1 where each cell answers to its own band alone, that is no chance
_TIE = 0.02
_MOST_BESIDE = 0.5


Array = NDArray[np.float64]
_Guess = tuple[float, int, tuple[int, ...]]  # how well it fits, tokens in front, extents of the last axes


@torch.no_grad()
def coordinates(module: nn.Module, layers: Sequence[str], row: Tensor, *, around: bool = False) -> dict[str, Tensor]:
    """Where in the input each element of some layers' activations lies.

    Runs the model on 1 + 4 rows per spatial axis: on noise, so that the answer is the same whatever the input.

    Args:
        module: ours.
        layers: their names.
        row: one input (1, C, *S), in the module's dtype, on its device.
        around: take the row in place of noise, and change its bands by noise of its own strength.

    Returns:
        Per layer that returns one entry per row: (axes, *shape of one row) from −1.5 to 1.5, NaN where nothing moves.

    Raises:
        ValueError: a layer runs more than once and no call is named, or never.
    """
    # One by one: rows of a batch may depend on each other, and for several there may be no memory.
    return _measured(module, layers, list(banded(row, around=around).split(1)))


def wide(activation: Tensor) -> Tensor:
    """In float32 at least."""
    return activation if activation.dtype is torch.float64 else activation.float()


def noise_like(row: Tensor, count: int) -> Tensor:
    """`count` rows of noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *row.shape[1:], generator=generator).to(row)


def banded(row: Tensor, *, around: bool) -> Tensor:
    """Noise like a row (1, C, *S), or the row itself, and below it one copy per band with that band replaced."""
    noise = noise_like(row, 2)
    base, other = noise[:1], noise[1:]
    if around:
        base, other = row, row + noise[1:] * row.std().clamp_min(1e-3)
    rows = [base]
    for axis in range(2, row.ndim):
        length = row.shape[axis]
        for band in range(BANDS):
            start, stop = band * length // BANDS, (band + 1) * length // BANDS
            changed = base.clone()
            changed.narrow(axis, start, stop - start).copy_(other.narrow(axis, start, stop - start))
            rows.append(changed)
    return torch.cat(rows)


def _measured(module: nn.Module, layers: Sequence[str], batches: list[Tensor]) -> dict[str, Tensor]:
    axes = batches[0].ndim - 2
    clean: dict[str, Tensor] = {}
    moved: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def taker(layer: str, rows: int) -> Take:
        def take(activation: Tensor) -> None:
            if activation.ndim < 2 or len(activation) != rows:
                return
            values = wide(activation.detach())
            first = clean.setdefault(layer, values[:1].clone())
            if first.shape[1:] == values.shape[1:]:
                moved[layer].append((values - first).square())

        return take

    for batch in batches:
        with at_layers(module, {layer: taker(layer, len(batch)) for layer in layers}):
            module(batch)
    found = {}
    for layer, parts in moved.items():
        rows = torch.cat(parts) if parts else torch.empty(0)
        if len(rows) == 1 + axes * BANDS and bool(rows.isfinite().all()):
            found[layer] = centres_of(rows[1:].unflatten(0, (axes, BANDS)))
    return found


def centres_of(moved: Tensor) -> Tensor:
    """Coordinates (axes, *shape) from how far each band moves each element, (axes, bands, *shape)."""
    total, bands = moved.sum(1), moved.shape[1]
    band = torch.arange(bands, dtype=moved.dtype, device=moved.device) - (bands - 1) / 2
    centre = torch.einsum("ab...,b->a...", moved, band) / total
    seen = total > 1e-6 * total.flatten(1).mean(1).view(-1, *[1] * (total.ndim - 1))
    return torch.where(seen, centre, torch.nan)


def reading_of(centres: Tensor, grid: tuple[int, ...] | None = None) -> Reading | None:
    """The reading of an activation under which its elements lie where they answer; None where none is clear.

    Args:
        centres: (axes, *shape) of `coordinates`.
        grid: extents that are given.
    """
    axes, shape = len(centres), centres.shape[1:]
    scored = [(*agreement(centres.movedim(reading.channels, 1)), reading) for reading in candidates(shape, axes, grid)]
    for order, rise, reading in scored:
        rivals = [other for _, other, another in scored if another is not reading]
        # Along a single axis tokens with others beside them rise as well; they are told apart below.
        certain = axes > 1 or reading.channels == 1
        if certain and order > _CLEAR and all(rise > 2 * other for other in rivals):
            return reading
    if len(shape) != 2:
        return None
    tokens = _tokens(centres, grid)
    return Axes(2) if tokens == Tokens(0, tuple(shape[:1])) else tokens


def reading_by_kind(
    shape: Sequence[int], plain: Collection[tuple[int, ...]], size: Sequence[int], grid: Grid = None
) -> Reading | None:
    """The reading of a map too coarse to answer, where every cell sees the whole input.

    What a convolution makes it; or the only one under which the grid is not finer than the input.

    Args:
        shape: of one row.
        plain: the shapes that convolutions, normalisations and pooling of this forward return.
        size: of the input, its spatial axes.
        grid: extents that are given.
    """
    shape = tuple(shape)
    coarse = max(shape[1:], default=BANDS + 1) <= BANDS
    told = len(set(shape)) > 1 and (shape in plain or shape[0] > max(size))
    if coarse and told and grid in (None, shape[1:]):
        return Axes(1)
    last = len(shape) == len(size) + 1 and max(shape[:-1]) <= BANDS and shape not in plain
    if last and shape[-1] > max(size) and grid in (None, shape[:-1]):
        return Axes(len(size) + 1)
    return None


def agreement(centres: Tensor) -> tuple[float, float]:
    """How well coordinates (axes, C, *s), averaged over channels, rise along their axes, and how steeply: the least."""
    found = [(order, spread * order) for order, spread in _along(centres)]
    orders, rises = zip(*found, strict=True) if found else ((0.0,), (0.0,))
    return min(orders), min(rises)


def contradicts(centres: Tensor) -> bool:
    """Whether elements (axes, C, *s) plainly answer to other places than their own, as those of a turned map do."""
    return any(order < _CLEAR and spread > _PLAIN for order, spread in _along(centres))


def _along(centres: Tensor) -> Iterator[tuple[float, float]]:
    """Per axis: the correlation of coordinates (axes, C, *s), averaged over channels, with it, and their spread."""
    mean = centres.nanmean(1).nan_to_num(0.0)
    for axis, extent in enumerate(mean.shape[1:]):
        if extent > 1:
            level = _levels(extent).to(mean).view(-1, *[1] * (mean.ndim - 2 - axis)).expand_as(mean[axis])
            own, norm = mean[axis] - mean[axis].mean(), level.norm()
            product, spread = (own * level).sum(), own.norm()
            yield float(product / (spread * norm).clamp_min(1e-12)), float(spread / norm)


def _levels(extent: int) -> Tensor:
    """The coordinate of each of `extent` equal cells: which bands it overlaps."""
    return torch.from_numpy(_cells(extent))


@cache
def _cells(extent: int) -> Array:
    edges = np.arange(extent + 1) / extent * BANDS
    whole = np.floor(edges)
    area = whole * (whole - 1) / 2 + whole * (edges - whole)
    return (area[1:] - area[:-1]) * extent / BANDS - (BANDS - 1) / 2


def _tokens(centres: Tensor, grid: tuple[int, ...] | None) -> Tokens | None:
    """The run of tokens whose coordinates are those of a grid, and of which nothing is left over elsewhere.

    A hypothesis (tokens in front, extents) is scored per axis by the cosine between the coordinates of all tokens and
    those that it says: of cells on the grid, and the centre for tokens beside it, which answer to everything alike. The
    axes are settled from the last, which repeats fastest, to the first.
    """
    # NumPy, whose small arrays cost a tenth of torch's.
    own: Array = centres.nanmean(-1).nan_to_num(0.0).double().cpu().numpy()  # (axes, T)
    axes, count = own.shape
    if grid is not None and (len(grid) != axes or prod(grid) > count):
        return None
    norms = np.sqrt(np.square(own).sum(1)).clip(1e-6)
    partial: list[_Guess] = [(1.0, first, ()) for first in range(min(MOST_IN_FRONT, count - 1) + 1)]
    for axis in reversed(range(axes)):
        extents = [grid[axis]] if grid is not None else _extents(own[axis], first=axis == 0, alone=axes == 1)
        partial = _extended(partial, own[axis] / norms[axis], extents, last=axis == 0)
    whole = []
    for _, first, shape in partial:
        scores = [cosine(own[axis], first, shape, axis) for axis in range(axes)]
        for axis, extent in enumerate(shape):
            if extent == 1:  # then all tokens see all of that axis
                scores[axis] = 1 - norms[axis] / norms.max()
        if min(scores) > _CLEAR and max(shape) > 1:
            whole.append((sum(scores) / len(scores), -(count - prod(shape)), Tokens(first, shape)))
    if not whole:
        return None
    best = max(score for score, _, _ in whole)
    # Among equals the one that leaves fewer tokens aside: a grid without its last row fits the rest as well.
    close = sorted((entry for entry in whole if entry[0] > best - _TIE), key=lambda entry: (entry[1], entry[0]))
    found = close[-1][2]
    # What lies beside a grid answers to all places alike. A head's anchors of other levels do not: that is no grid.
    return found if _beside(own, found.first, prod(found.shape)) < _MOST_BESIDE else None


def _beside(own: Array, first: int, cells: int) -> float:
    """How strongly the tokens beside a grid answer to places, as a share of those on it."""
    energy = np.square(own).sum(0)
    rest = np.concatenate([energy[:first], energy[first + cells :]])
    return float(rest.mean() / max(energy[first : first + cells].mean(), 1e-12)) if len(rest) else 0.0


def _extents(own: Array, *, first: bool, alone: bool) -> list[int]:
    """How long an axis may be: any length for the first one, else the lengths after which coordinates repeat."""
    count = len(own)
    if alone:
        return list(range(max(1, count - _MOST_ASIDE), count + 1))
    most = count if first else count // 2
    if first or most <= _MOST_LAGS:
        return list(range(1, most + 1))
    spectrum = np.square(np.abs(np.fft.rfft(own - own.mean(), 2 * count)))
    again = np.fft.irfft(spectrum)[1 : most + 1] / np.arange(count - 1, count - most - 1, -1)
    return sorted({1, *(np.argsort(again)[-_MOST_LAGS:] + 1).tolist()})


def _extended(partial: list[_Guess], own: Array, extents: list[int], *, last: bool) -> list[_Guess]:
    """The hypotheses with one more axis in front, the best of them first."""
    found: list[_Guess] = []
    for score, first, inner in partial:
        inside = prod(inner)
        rest = own[first:]
        cells = rest[: len(rest) // inside * inside].reshape(-1, inside).sum(1)  # alike on the inner axes
        for extent in extents:
            if extent > len(cells):
                break
            if extent == 1:
                found.append((score * 0.5, first, (extent, *inner)))
                continue
            levels = _cells(extent)
            times = 1 if last else len(cells) // extent
            blocks = cells[: times * extent].reshape(times, extent) @ levels
            weights = (levels @ levels) * inside * np.arange(1, times + 1)
            best = float((blocks.cumsum() / np.sqrt(weights)).max())
            found.append((score * max(best, 0.0), first, (extent, *inner)))
    return sorted(found, key=lambda guess: -guess[0])[:_BEAM]


def cosine(own: Array, first: int, shape: tuple[int, ...], axis: int) -> float:
    """Between the coordinates of all tokens along an axis and those that a hypothesis says."""
    said = np.zeros_like(own)
    levels = _cells(shape[axis]).reshape(-1, *[1] * (len(shape) - 1 - axis))
    said[first : first + prod(shape)] = np.broadcast_to(levels, shape).flatten()
    return float(own @ said / max(np.sqrt((own @ own) * (said @ said)), 1e-12))

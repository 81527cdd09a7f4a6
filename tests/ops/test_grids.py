"""Masks are scikit-image's, the same however they are written; and bins hold what a sum over masks holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_support import BACKENDS, label, run
from skimage.transform import resize

from xai_fast import ops
from xai_fast.ops._grids import cell_extent
from xai_fast.ops.grid_masks.cases import masks

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Extents, and cells along each axis.
GRIDS = [
    ((13, 11), (4, 3)),
    ((12, 15), (3, 5)),
    ((5, 4), (7, 6)),
    ((9, 8), (1, 1)),
    ((9, 8), (2, 1)),
    ((30,), (4,)),
    ((1,), (3,)),
    ((6, 7, 8), (2, 3, 4)),
]
every = pytest.mark.parametrize(("extents", "cells"), GRIDS, ids=str)


@pytest.fixture(params=["reference", *BACKENDS])
def backend(request):
    if reason := ops.backends()[request.param]:
        pytest.skip(reason)
    return request.param


def drawn(rows, extents, cells, seed=0):
    return masks(rows, extents, cells, torch.Generator().manual_seed(seed))


def enlarged(grids, shifts, extents):
    """(M, *extents): as the paper's own program makes masks, with scikit-image."""
    found = []
    for grid, shift in zip(grids, shifts.tolist(), strict=True):
        sizes = [(n + 1) * int(np.ceil(extent / n)) for extent, n in zip(extents, grid.shape, strict=True)]
        whole = resize(grid.numpy().astype(np.float64), sizes, order=1, mode="reflect", anti_aliasing=False)
        found.append(whole[tuple(slice(first, first + n) for first, n in zip(shift, extents, strict=True))])
    return torch.from_numpy(np.stack(found))


def masked(backend, grids, shifts, extents, dtype=torch.float64, shown=1.0, hidden=0.0):
    """What is written of one channel that is `shown` everywhere."""
    arguments = {
        "inputs": torch.full((1, 1, *extents), shown, dtype=dtype),
        "baseline": torch.tensor(hidden, dtype=dtype),
        "grids": grids,
        "shifts": shifts,
        "sample": torch.zeros(len(grids), dtype=torch.int64),
        "out": torch.empty(len(grids), 1, *extents, dtype=dtype),
    }
    return run(backend, "grid_masks", arguments)[:, 0]


@every
def test_masks_are_scikit_images(backend, extents, cells):
    grids, shifts = drawn(9, extents, cells)
    actual = masked(backend, grids, shifts, extents)
    torch.testing.assert_close(actual, enlarged(grids, shifts, extents), rtol=0.0, atol=1e-14)
    shown = masked(backend, grids, shifts, extents, shown=3.0, hidden=-1.0)
    torch.testing.assert_close(shown, 4.0 * actual - 1.0, rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
def test_full_and_empty_grids_are_exact(backend, dtype):
    grids, shifts = drawn(4, (13, 11), (4, 3))
    shown, hidden = (torch.tensor(value, dtype=dtype).item() for value in (0.3, -0.7))
    rows = masked(backend, grids, shifts, (13, 11), dtype, shown, hidden)
    assert rows[0].eq(hidden).all()
    assert rows[1].eq(shown).all()


def test_the_largest_shift_still_covers_the_input(backend):
    """28 positions in cells of 7: a shift of 6 ends at the last but one of the enlarged 35."""
    grids = torch.ones(1, 4, dtype=torch.bool)
    grids[0, -1] = False
    last = masked(backend, grids, torch.tensor([[6]]), (28,))
    torch.testing.assert_close(last, enlarged(grids, torch.tensor([[6]]), (28,)), rtol=0.0, atol=1e-14)


@every
def test_maps_of_bins_are_the_sum_over_masks(backend, extents, cells):
    rows, targets = 40, 3
    grids, shifts = drawn(rows, extents, cells)
    weights = torch.randn(rows, targets, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    positions = [cell_extent(*axis) for axis in zip(extents, cells, strict=True)]
    bins = torch.zeros(*positions, targets, *cells, dtype=torch.float64)
    with ops.using(backend):
        assert ops.grid_reduce(grids, shifts, weights, bins) is bins
    expected = torch.einsum("mt,m...->t...", weights, enlarged(grids, shifts, extents))
    torch.testing.assert_close(ops.grid_maps(bins, extents), expected, rtol=0.0, atol=1e-13)


def test_rows_may_come_in_any_number_of_calls(backend):
    grids, shifts = drawn(30, (9, 10), (3, 4))
    weights = torch.randn(30, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bins = [torch.zeros(3, 3, 2, 3, 4, dtype=torch.float64) for _ in range(2)]
    with ops.using(backend):
        ops.grid_reduce(grids, shifts, weights, bins[0])
        for part in (slice(0, 1), slice(1, 17), slice(17, 30)):
            ops.grid_reduce(grids[part], shifts[part], weights[part], bins[1])
    assert bins[0].equal(bins[1])
    assert bins[0]._version > 0


def test_a_weight_reaches_the_cells_that_are_kept_alone(backend):
    grids = torch.tensor([[[True, False], [False, True]]])
    bins = torch.full((2, 1, 1, 2, 2), 0.5, dtype=torch.float64)
    weights = torch.tensor([[torch.nan]], dtype=torch.float64)
    with ops.using(backend):
        ops.grid_reduce(grids, torch.tensor([[1, 0]]), weights, bins)
    assert bins[0].eq(0.5).all()
    assert bins[1, 0, 0].isnan().equal(grids[0])


def test_maps_refuse_bins_of_other_extents():
    bins = torch.zeros(3, 4, 1, 3, 3, dtype=torch.float64)
    assert ops.grid_maps(bins, (9, 12)).shape == (1, 9, 12)
    with pytest.raises(ValueError, match="`bins` has 4 positions and 3 cells along an axis of 9; it takes 3"):
        ops.grid_maps(bins, (9, 9))
    with pytest.raises(ValueError, match=r"`bins` has 5 axes; it takes \(\*positions, T, \*cells\) for 1 spatial"):
        ops.grid_maps(bins, (9,))

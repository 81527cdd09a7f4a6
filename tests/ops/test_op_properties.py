"""Compiled kernels against their references on generated shapes, strides and boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_support import assert_agree, run, tolerance

from xai_fast import ops
from xai_fast.ops._grids import cell_extent
from xai_fast.ops.hide_windows.cases import FLOATING
from xai_fast.ops.region_gather import BORDERS

pytestmark = pytest.mark.skipif(ops.backends()["cpp"] is not None, reason="no compiled kernels")
quickly = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def tensors(draw, shape, dtypes=FLOATING):
    """A tensor of that shape whose axes lie in memory in any order, with gaps or without."""
    order = draw(st.permutations(range(len(shape))))
    step = draw(st.integers(1, 2))
    stored = [shape[axis] for axis in order]
    stored[-1] *= step
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = torch.randn(stored, generator=generator).to(draw(st.sampled_from(dtypes)))[..., ::step]
    return values.permute([order.index(axis) for axis in range(len(shape))])


@st.composite
def boxes_within(draw, count, extents):
    pairs = [[sorted(draw(st.tuples(*[st.integers(0, n)] * 2))) for n in extents] for _ in range(count)]
    return torch.tensor(pairs, dtype=torch.int64).reshape(count, len(extents), 2)


extents_of_rows = st.lists(st.integers(0, 7), min_size=2, max_size=4)


def rows_of(draw, count, rows):
    return torch.tensor(draw(st.lists(st.integers(0, count - 1), min_size=rows, max_size=rows))).long()


@st.composite
def windows_to_hide(draw):
    """Arguments of hide_windows."""
    extents = draw(extents_of_rows)
    samples, rows = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    inputs = draw(tensors((samples, *extents)))
    shared = [draw(st.sampled_from([1, n])) for n in inputs.shape]
    return {
        "inputs": inputs,
        "baseline": draw(tensors(tuple(shared), (inputs.dtype,))),
        "sample": rows_of(draw, samples, rows),
        "boxes": draw(boxes_within(rows, extents)),
        "out": draw(tensors((rows, *extents))),
    }


@st.composite
def segments_to_hide(draw):
    """Arguments of hide_segments."""
    extents = draw(extents_of_rows)
    samples, rows, segments = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.integers(0, 5))
    inputs = draw(tensors((samples, *extents)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    shared = [draw(st.sampled_from([1, n])) for n in inputs.shape]
    return {
        "inputs": inputs,
        "baseline": draw(tensors(tuple(shared), (inputs.dtype,))),
        "labels": torch.randint(-1, segments, (samples, *extents[1:]), generator=generator),
        "sample": rows_of(draw, samples, rows),
        "keep": torch.rand(rows, segments, generator=generator) < 0.5,
        "out": draw(tensors((rows, *extents))),
    }


@given(windows_to_hide())
@quickly
def test_hide_windows(arguments):
    assert_agree(run("cpp", "hide_windows", arguments), run("reference", "hide_windows", arguments), 0.0)


@given(segments_to_hide())
@quickly
def test_hide_segments(arguments):
    assert_agree(run("cpp", "hide_segments", arguments), run("reference", "hide_segments", arguments), 0.0)


@st.composite
def origins(draw, count, extents):
    """Origins near each axis, on either side, and rarely at the ends of the integers."""
    near = [st.integers(-n - 4, n + 4) | st.sampled_from([-(2**63), 2**63 - 1]) for n in extents]
    return torch.tensor([[draw(axis) for axis in near] for _ in range(count)]).long().reshape(count, len(extents))


@st.composite
def regions_to_gather(draw):
    """Arguments of region_gather."""
    border = draw(st.sampled_from(BORDERS))
    channels, axes = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    samples, rows = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    smallest = 0 if border == "constant" else 1
    extents, box, region = (
        draw(st.lists(st.integers(least, most), min_size=axes, max_size=axes))
        for least, most in ((smallest, 6), (0, 6), (0, 12))
    )
    base = draw(tensors((samples, channels, *extents)))
    patched = draw(st.booleans())
    return {
        "base": base,
        "patch": draw(tensors((rows, channels, *box), (base.dtype,))) if patched else None,
        "patch_at": draw(origins(rows, extents)) if patched else None,
        "sample": rows_of(draw, samples, rows),
        "at": draw(origins(rows, extents)),
        "out": draw(tensors((rows, channels, *region), (base.dtype,))),
        "border": border,
        "fill": draw(st.sampled_from([0.0, -0.5, -torch.inf])),
    }


@given(regions_to_gather())
@quickly
def test_region_gather(arguments):
    assert_agree(run("cpp", "region_gather", arguments), run("reference", "region_gather", arguments), 0.0)


@given(st.data())
@quickly
def test_add_noise(data):
    extents = data.draw(extents_of_rows)
    samples, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    arguments = {
        "inputs": data.draw(tensors((samples, *extents))),
        "scale": torch.linspace(-1, 1, rows, dtype=torch.float64),
        "sample": rows_of(data.draw, samples, rows),
        "key": rows_of(data.draw, 3, rows) * data.draw(st.integers(-(2**62), 2**62)) - 1,
        "draw": rows_of(data.draw, 2**32, rows),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
        "out": data.draw(tensors((rows, *extents))),
    }
    expected = run("reference", "add_noise", arguments)
    atol = tolerance("add_noise", arguments, expected.dtype)
    assert_agree(run("cpp", "add_noise", arguments), expected, atol)


@given(st.data())
@quickly
def test_path_points(data):
    extents = data.draw(extents_of_rows)
    samples, starts, rows = (data.draw(st.integers(least, 4)) for least in (1, 1, 0))
    inputs = data.draw(tensors((samples, *extents)))
    shared = tuple(data.draw(st.sampled_from([1, n])) for n in extents)
    arguments = {
        "inputs": inputs,
        "baseline": data.draw(tensors((starts, *shared), (inputs.dtype,))).expand(starts, *extents),
        "sample": rows_of(data.draw, samples, rows),
        "reference": rows_of(data.draw, starts, rows),
        "alpha": torch.tensor([data.draw(st.floats(0, 1)) for _ in range(rows)], dtype=torch.float64),
        "out": data.draw(tensors((rows, *extents))),
    }
    expected = run("reference", "path_points", arguments)
    atol = tolerance("path_points", arguments, expected.dtype)
    assert_agree(run("cpp", "path_points", arguments), expected, atol)


@st.composite
def grids_of(draw, rows, extents):
    """Grids of up to four cells along each axis, and shifts of up to a cell."""
    cells = [draw(st.integers(1, 4)) for _ in extents]
    kept = torch.randn((rows, *cells), generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0
    positions = [cell_extent(*axis) for axis in zip(extents, cells, strict=True)]
    shifts = [[draw(st.integers(0, most - 1)) for most in positions] for _ in range(rows)]
    return kept, torch.tensor(shifts, dtype=torch.int64).reshape(rows, len(extents)), positions


@given(st.data())
@quickly
def test_grid_masks(data):
    extents = data.draw(extents_of_rows)
    samples, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    grids, shifts, _ = data.draw(grids_of(rows, extents[1:]))
    inputs = data.draw(tensors((samples, *extents)))
    shared = tuple(data.draw(st.sampled_from([1, n])) for n in inputs.shape)
    arguments = {
        "inputs": inputs,
        "baseline": data.draw(tensors(shared, (inputs.dtype,))),
        "grids": grids,
        "shifts": shifts,
        "sample": rows_of(data.draw, samples, rows),
        "out": data.draw(tensors((rows, *extents))),
    }
    expected = run("reference", "grid_masks", arguments)
    atol = tolerance("grid_masks", arguments, expected.dtype)
    assert_agree(run("cpp", "grid_masks", arguments), expected, atol)


@given(st.data())
@quickly
def test_grid_reduce(data):
    extents = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    rows, targets = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 3))
    grids, shifts, positions = data.draw(grids_of(rows, extents))
    arguments = {
        "grids": grids,
        "shifts": shifts,
        "weights": data.draw(tensors((rows, targets), (torch.float64,))),
        "bins": torch.randn(*positions, targets, *grids.shape[1:], dtype=torch.float64),
    }
    assert_agree(run("cpp", "grid_reduce", arguments), run("reference", "grid_reduce", arguments), 0.0)


@given(st.data())
@quickly
def test_moments(data):
    extents = data.draw(st.lists(st.integers(0, 7), min_size=0, max_size=5))
    groups, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    which = data.draw(st.sampled_from([("total",), ("squares",), ("total", "squares")]))
    sums = {name: torch.randn(groups, *extents, dtype=torch.float64) for name in which}
    arguments = {
        "values": data.draw(tensors((rows, *extents))),
        "weight": torch.linspace(-1, 1, rows, dtype=torch.float64) if data.draw(st.booleans()) else None,
        "group": rows_of(data.draw, groups, rows),
        "total": sums.get("total"),
        "squares": sums.get("squares"),
    }
    expected = run("reference", "moments", arguments)
    atol = tolerance("moments", arguments, expected.dtype)
    assert_agree(run("cpp", "moments", arguments), expected, atol)


@given(st.data())
@quickly
def test_window_mean(data):
    extents = data.draw(extents_of_rows)
    count = data.draw(st.integers(0, 9))
    shape = (data.draw(st.integers(0, 2)), count, data.draw(st.integers(0, 2)))
    values = data.draw(tensors(shape, (torch.float32, torch.float64)))
    arguments = {
        "values": values,
        "boxes": data.draw(boxes_within(count, extents)),
        "shape": tuple(extents),
    }
    expected = run("reference", "window_mean", arguments)
    assert_agree(run("cpp", "window_mean", arguments), expected, tolerance("window_mean", arguments, values.dtype))


@given(st.data())
@quickly
def test_cam_reduce(data):
    samples, targets = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    channels = data.draw(st.integers(0, 70))
    grid = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    arguments = {
        "activations": data.draw(tensors((samples, channels, *grid))),
        "weights": data.draw(tensors((samples, targets, channels))),
        "relu": data.draw(st.booleans()),
        "size": data.draw(st.none() | st.tuples(st.integers(0, 12), st.integers(0, 12))),
    }
    expected = run("reference", "cam_reduce", arguments)
    atol = tolerance("cam_reduce", arguments, expected.dtype)
    assert_agree(run("cpp", "cam_reduce", arguments), expected, atol)

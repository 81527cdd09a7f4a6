"""Every op on every backend: each dtype in each memory layout, empty, and with places beyond 32 bits."""

from __future__ import annotations

import inspect

import pytest
import torch
from ops_support import BACKENDS, CASES, INTERPRETED, device_of, run, tolerance
from test_op_backends import has_no_kernel, skip_without
from torch import Tensor
from views import VIEWS

from xai_fast import ops

LAYOUTS = {
    "contiguous": lambda value: value.contiguous(),
    "channels last": lambda value: value.contiguous(memory_format=channels_last(value)),
    "sliced": VIEWS["sliced"],
    "transposed": VIEWS["transposed"],
    "reversed memory": VIEWS["reversed memory"],
}
SUMS = ("total", "squares", "gram", "moment", "bins")  # contiguous by contract
ROWWISE = ("hide_windows", "hide_segments", "grid_masks", "blend_maps", "add_noise", "path_points", "region_gather")


def channels_last(value):
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(value.dim(), torch.contiguous_format)


def floating_arguments(name):
    """Arguments of an op that are floating tensors in some case."""
    given = [case.arguments(case.dtypes[0]) for case in CASES[name] if not case.workload]
    return [
        key
        for key in inspect.signature(getattr(ops, name)).parameters
        if any(isinstance(value.get(key), Tensor) and value[key].is_floating_point() for value in given)
    ]


PLACES = [(name, argument) for name in CASES if name != "byte_hash" for argument in floating_arguments(name)]


def walked(value):
    """Axes along which elements lie at different places."""
    return [axis for axis in range(value.dim()) if value.shape[axis] > 1 and value.stride(axis)]


def smallest(name, argument, dtype):
    """A case of that dtype in which nothing is empty: images before signals and volumes, an argument with many axes."""
    found = []
    for case in CASES[name]:
        if case.workload or dtype not in case.dtypes:
            continue
        given = case.arguments(dtype)
        tensors = [value for value in given.values() if isinstance(value, Tensor)]
        if isinstance(given[argument], Tensor) and all(value.numel() for value in tensors):
            images = max(value.dim() for value in tensors) == 4
            found.append((not images, -len(walked(given[argument])), given[argument].numel(), given))
    return min(found, key=lambda entry: entry[:3])[3] if found else None


def dtypes_of(name):
    return sorted({dtype for case in CASES[name] for dtype in case.dtypes}, key=str)


def compare(backend, name, arguments, expected):
    """The result on a backend, or the reasons why it refuses these; where it runs, it agrees."""
    try:
        actual = run(backend, name, arguments)
    except ops.BackendError as error:
        return str(error)
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=tolerance(name, arguments, actual.dtype, backend), equal_nan=True
    )
    return None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "argument"), PLACES, ids=lambda part: part)
def test_every_dtype_in_every_layout(backend, name, argument):
    skip_without(backend, name)
    ran = 0
    for dtype in dtypes_of(name):
        arguments = smallest(name, argument, dtype)
        if arguments is None or has_no_kernel(name, dtype):
            continue
        expected = run("reference", name, arguments)
        for view in LAYOUTS.values():
            changed = {**arguments, argument: view(arguments[argument])}
            try:
                if name == "sign_bits":  # whose bits are in the order of memory
                    expected = run("reference", name, changed)
                refused = compare(backend, name, changed, expected)
            except ValueError as error:  # a layout that the contract leaves out, by name
                assert f"`{argument}`" in str(error)  # noqa: PT017
                continue
            if refused is None:
                ran += 1
            else:  # only these want dense maps, the first two channels last
                assert name in (
                    "winograd_convolution",
                    "inverted_bottleneck",
                    "gated_pointwise",
                    "relu_change",
                    "bias_relu",
                ), refused
    assert ran or (
        name in ("winograd_convolution", "inverted_bottleneck", "gated_pointwise") and ops.register_panel() == 0
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ROWWISE)
def test_empty_rows_and_extents(backend, name):
    """No row, and rows without an element."""
    skip_without(backend, name)
    empty = [case for case in CASES[name] if any(word in case.name for word in ("no rows", "empty", "no c"))]
    assert len(empty) >= 2, [case.name for case in CASES[name]]
    for case in empty:
        for dtype in case.dtypes:
            arguments = case.arguments(dtype)
            assert compare(backend, name, arguments, run("reference", name, arguments)) is None


def stretched(value, axis):
    """The same numbers, of which two neighbours along an axis lie 2^31 elements apart; the memory is not touched."""
    stride = -(-(2**31) // max(value.shape[axis] - 1, 1))
    strides = list(value.contiguous().stride())
    strides[axis] = stride
    reach = sum((extent - 1) * step for extent, step in zip(value.shape, strides, strict=True))
    try:
        memory = torch.empty(reach + 1, dtype=value.dtype, device=value.device)
    except RuntimeError as error:
        pytest.skip(f"no room for addresses beyond 32 bits: {str(error)[:80]}")
    return memory.as_strided(value.shape, strides).copy_(value)


WIDE = [place for place in PLACES if place[0] in ROWWISE and place[1] in ("inputs", "out", "base", "patch", "baseline")]
WIDE += [("moments", "values"), ("window_mean", "values"), ("cam_reduce", "activations"), ("blend_maps", "maps")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "argument"), WIDE, ids=lambda part: part)
def test_places_beyond_32_bits(backend, name, argument):
    """Strides within a row, and from row to row."""
    skip_without(backend, name)
    if device_of(backend).type == "cuda" and torch.cuda.get_device_properties(0).total_memory < 30e9:
        pytest.skip("too little memory on the device")
    dtype = torch.float32 if name == "window_mean" else torch.float16
    arguments = smallest(name, argument, dtype)
    value = arguments[argument]
    axes = walked(value)
    expected = run("reference", name, arguments)
    for axis in axes[:2]:
        changed = {**arguments, argument: stretched(value, axis)}
        assert compare(backend, name, changed, expected) is None, axis
    assert axes


@pytest.mark.skipif(INTERPRETED, reason="no kernel of Triton's is involved")
def test_the_table_covers_every_op():
    assert {name for name, _ in PLACES} == set(CASES) - {"byte_hash"} == set(ops.all_ops()) - {"byte_hash"}

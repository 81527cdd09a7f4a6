"""CUDA C++ kernels without a GPU: what each of their threads does, run on the host against the references."""

from __future__ import annotations

import pytest
import torch
from cuda_support import KERNELS, MAX_BLOCKS, built_for_the_host, taking_the_place_of_a_gpu
from hypothesis import given, settings
from ops_support import CASES, assert_agree, device_of, label, run
from test_op_properties import quickly, regions_to_gather, segments_to_hide, windows_to_hide

from xai_fast import ops

pytestmark = pytest.mark.skipif(device_of("cuda").type == "cuda", reason="the kernels run on the device itself")
EVERY = [(name, case, dtype) for name in KERNELS for case in CASES[name] for dtype in case.dtypes]
FLOATING = CASES["hide_windows"][0].dtypes


@pytest.fixture(scope="module", autouse=True)
def on_host():
    with taking_the_place_of_a_gpu(built_for_the_host()):
        yield


def agree(name, arguments):
    assert_agree(run("cuda", name, arguments), run("reference", name, arguments), 0.0)


@pytest.mark.parametrize(("name", "case", "dtype"), EVERY, ids=label)
def test_agrees_with_the_reference(name, case, dtype):
    agree(name, case.arguments(dtype))


@given(windows_to_hide())
@quickly
def test_hide_windows(arguments):
    agree("hide_windows", arguments)


@given(segments_to_hide())
@quickly
def test_hide_segments(arguments):
    agree("hide_segments", arguments)


@given(regions_to_gather())
@settings(quickly, max_examples=150)
def test_region_gather(arguments):
    agree("region_gather", arguments)


LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@pytest.mark.parametrize("to", FLOATING, ids=label)
@pytest.mark.parametrize("dtype", FLOATING, ids=label)
def test_pieces_of_16_bytes_are_converted_and_laid_out(dtype, to):
    """Boxes whose edges fall into a piece, beside one and on its border; inputs at odd places of their memory."""
    for channels, inputs_layout, out_layout, shift in (
        (3, "NCHW", "NCHW", 0),
        (3, "NHWC", "NHWC", 0),
        (3, "NCHW", "NHWC", 0),
        (16, "NHWC", "NHWC", 0),
        (16, "NHWC", "NCHW", 1),
        (8, "NCHW", "NCHW", 1),
    ):
        shape = (2, channels, 8, 16)
        memory = torch.randn(2 * channels * 128 + shift).to(dtype)[shift:]
        strides = torch.empty(shape, dtype=dtype).to(memory_format=LAYOUTS[inputs_layout]).stride()
        edges = [[0, 4, 12], [0, 8, 16], [2, 2, 9], [3, 7, 8], [7, 8, 15], [1, 0, 1]]
        arguments = {
            "inputs": memory.as_strided(shape, strides),
            "baseline": torch.randn(channels, 1, 1).to(dtype),
            "sample": torch.arange(len(edges)) % 2,
            "boxes": torch.tensor([[[0, channels], [top, 8], [left, right]] for top, left, right in edges]),
            "out": torch.empty((len(edges), *shape[1:]), dtype=to).to(memory_format=LAYOUTS[out_layout]),
        }
        agree("hide_windows", arguments)
        labels = torch.arange(128).reshape(8, 16) // 5 % 7 - 1
        segments = {"labels": labels.expand(2, 8, 16), "keep": torch.rand(len(edges), 6) < 0.5}
        agree("hide_segments", {**{key: arguments[key] for key in arguments if key != "boxes"}, **segments})


@pytest.mark.parametrize("dtype", FLOATING, ids=label)
@pytest.mark.parametrize("odd", ["nothing", "channels", "start of base", "start of patch", "start of out"])
def test_vectors_of_channels_are_taken_where_they_fit(dtype, odd):
    """And only there: the same regions where the channels are too few, or something begins beside 16 bytes."""
    channels = 15 if odd == "channels" else 16
    shapes = {"base": (2, channels, 9, 8), "patch": (40, channels, 3, 4), "out": (40, channels, 6, 6)}
    maps = {}
    for name, shape in shapes.items():
        shift = int(odd.endswith(name))
        memory = torch.randn(torch.Size(shape).numel() + shift).to(dtype)[shift:]
        strides = torch.empty(shape).to(memory_format=torch.channels_last).stride()
        maps[name] = memory.as_strided(shape, strides)
    out = maps["out"]
    places = torch.cartesian_prod(torch.arange(-3, 5), torch.arange(-2, 3))
    for border in ("constant", "replicate", "reflect", "circular"):
        arguments = {**maps, "patch_at": places + 2, "sample": torch.arange(40) % 2, "at": places}
        expected = run("reference", "region_gather", {**arguments, "border": border, "fill": -0.5})
        with ops.using("cuda"):
            ops.region_gather(**arguments, border=border, fill=-0.5)
        assert torch.equal(out, expected)


def test_more_blocks_than_a_launch_takes():
    """Rows of one and of several blocks of 256 threads, more of them than fit into one launch."""
    for extent in (100, 256, 257, 256 * (MAX_BLOCKS + 2)):
        inputs, out = torch.randn(3, 1, extent, dtype=torch.float64), torch.empty(17, 1, 2 * extent).double()[..., ::2]
        boxes = torch.tensor([[[0, 1], [extent // 3, extent // 2]]] * 17)
        sample = torch.arange(17) % 3
        agree(
            "hide_windows", {"inputs": inputs, "baseline": inputs.flip(2), "sample": sample, "boxes": boxes, "out": out}
        )


def test_an_unknown_border_is_an_error_of_the_kernel():
    module = built_for_the_host()
    base, numbers = torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="unknown border odd"):
        module.region_gather(base, None, None, numbers[0], numbers, torch.zeros(1, 1, 2), "odd", 0.0, 0, 0)

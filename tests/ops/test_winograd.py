"""winograd_convolution against the definition of a convolution, and what it promises about rounding and rows."""

from __future__ import annotations

import pytest
import torch
from ops_support import run
from torch.nn import functional as F

from xai_fast import ops

LAST = torch.channels_last


@pytest.fixture(params=["avx2", "avx512"])
def panel(request):
    """Of every kernel in float32 that this processor can run, also those that it would not choose by itself."""
    if request.param not in ops.instruction_sets():
        pytest.skip(f"no kernel for {request.param} here")
    with ops.limited_to(request.param):
        yield ops.register_panel()


@pytest.fixture(params=["avx2", "avx512", "avx512_bf16"])
def kernel(request):
    """(panel, dtype) of every kernel, the one in bfloat16 among them."""
    if request.param not in ops.instruction_sets():
        pytest.skip(f"no kernel for {request.param} here")
    dtype = torch.bfloat16 if request.param == "avx512_bf16" else torch.float32
    with ops.limited_to(request.param):
        yield ops.register_panel(dtype), dtype


def arguments(rows, inward, outward, size, padding=1, dtype=torch.float32, other=False, relu=True, seed=0, panel=32):
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(outward, inward, 3, 3, generator=generator) / (9 * inward) ** 0.5).to(dtype)
    results = [rows, outward, *(extent + 2 * padding - 2 for extent in size)]
    call = {
        "inputs": torch.randn(rows, inward, *size, generator=generator).to(dtype).contiguous(memory_format=LAST),
        "kernels": ops.winograd_kernels(weight, panel),
        "bias": torch.randn(outward, generator=generator).to(dtype),
        "other": torch.randn(results, generator=generator).to(dtype).contiguous(memory_format=LAST) if other else None,
        "out": torch.empty(results, dtype=dtype, memory_format=LAST),
        "padding": padding,
        "relu": relu,
    }
    return call, weight


def by_definition(call, weight):
    y = F.conv2d(call["inputs"].double(), weight.double(), call["bias"].double(), padding=call["padding"])
    y = y if call["other"] is None else y + call["other"].double()
    return y.relu() if call["relu"] else y


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 8), (9, 6), (1, 2)])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("other", "relu"), [(False, False), (True, True)])
def test_the_reference_is_the_definition(size, padding, other, relu):
    if min(size) + 2 * padding < 3:
        pytest.skip("no position fits")
    call, weight = arguments(2, 5, 32, size, padding, torch.float64, other, relu)
    torch.testing.assert_close(run("reference", "winograd_convolution", call), by_definition(call, weight))


@pytest.mark.parametrize(("channels", "size"), [(64, 28), (256, 14), (512, 7)])
def test_rounding_is_no_larger_than_that_of_the_direct_sum(panel, channels, size):
    call, weight = arguments(2, channels, channels, (size, size), relu=False, panel=panel)
    truth = by_definition(call, weight)
    direct = F.conv2d(call["inputs"], weight, call["bias"], padding=1)

    def error(y):
        return (y.double() - truth).square().mean().sqrt()

    assert error(run("cpp", "winograd_convolution", call)) <= 1.25 * error(direct)


@pytest.mark.parametrize(("channels", "size"), [(64, 28), (256, 14), (512, 7)])
@pytest.mark.parametrize("other", [False, True])
def test_rounding_in_bfloat16_is_at_most_twice_that_of_the_direct_sum(channels, size, other):
    """On the compiled kernel and on the reference alike; without a kernel the reference's panel is 32."""
    call, weight = arguments(2, channels, channels, (size, size), dtype=torch.bfloat16, other=other, relu=False)
    truth = by_definition(call, weight)
    direct = F.conv2d(call["inputs"], weight, call["bias"], padding=1)
    direct = direct if call["other"] is None else direct + call["other"]

    def error(y):
        return (y.double() - truth).square().mean().sqrt()

    backends = ["reference", "cpp"] if ops.register_panel(torch.bfloat16) else ["reference"]
    for backend in backends:
        assert error(run(backend, "winograd_convolution", call)) <= 2 * error(direct)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_row_does_not_depend_on_its_neighbours(kernel, threads):
    """However many there are, and however work is divided among threads."""
    panel, dtype = kernel
    call, _ = arguments(40, 64, 2 * panel, (6, 5), dtype=dtype, other=True, panel=panel)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = run("cpp", "winograd_convolution", call)
        for rows in (slice(0, 1), slice(3, 10)):
            part = {key: call[key][rows] for key in ("inputs", "other", "out")}
            assert run("cpp", "winograd_convolution", {**call, **part}).equal(together[rows])
    finally:
        torch.set_num_threads(before)


def test_sums_up_in_place(kernel):
    panel, dtype = kernel
    call, _ = arguments(3, 32, panel, (9, 9), dtype=dtype, other=True, panel=panel)
    expected = run("cpp", "winograd_convolution", call)
    with ops.using("cpp"):
        assert ops.winograd_convolution(**{**call, "out": call["other"]}) is call["other"]
    assert call["other"].equal(expected)


def test_nan_and_infinity_come_through_the_relu(kernel):
    panel, dtype = kernel
    call, _ = arguments(1, 16, panel, (8, 8), dtype=dtype, panel=panel)
    call["inputs"][0, 3, 2, 2] = torch.nan
    y = run("cpp", "winograd_convolution", call)
    assert y[0, :, 1:4, 1:4].isnan().all()
    assert y[0, :, 5:, 5:].isfinite().all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda call: {"inputs": call["inputs"].contiguous()}, "not dense with channels last"),
        (lambda call: {"inputs": call["inputs"][:, :4], "kernels": call["kernels"][:, :, :4]}, "in panels of"),
        (
            lambda call: {key: call[key].double() for key in ("inputs", "kernels", "bias", "out")},
            "not float32 or bfloat16",
        ),
    ],
)
def test_what_registers_do_not_fit_runs_on_the_reference(panel, change, reason):
    call, weight = arguments(2, 32, panel, (6, 6), panel=panel)
    changed = {**call, **change(call)}
    assert any(reason in why for why in ops.all_ops()["winograd_convolution"].reasons(*changed.values())["cpp"])
    expected = by_definition({**changed, "other": None}, weight[:, : changed["inputs"].shape[1]])
    torch.testing.assert_close(ops.winograd_convolution(**changed).double(), expected, rtol=1e-4, atol=1e-5)


def test_kernels_come_in_whole_panels():
    with pytest.raises(ValueError, match="K a multiple of the panel"):
        ops.winograd_kernels(torch.zeros(48, 16, 3, 3), 32)
    with pytest.raises(ValueError, match="of the panel 32 and C of 2"):
        ops.winograd_kernels(torch.zeros(64, 15, 3, 3, dtype=torch.bfloat16), 32)


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (16, 16)])
def test_any_size(kernel, size):
    panel, dtype = kernel
    call, weight = arguments(3, 48, 96, size, dtype=dtype, other=True, panel=panel)
    relative, absolute = (1e-5, 2e-6) if dtype is torch.float32 else (2**-6, 2**-5)
    torch.testing.assert_close(
        run("cpp", "winograd_convolution", call).double(), by_definition(call, weight), rtol=relative, atol=absolute
    )


def test_processors_without_vectors_have_no_kernel():
    if not ops.instruction_sets():
        pytest.skip("no compiled kernels")
    with ops.limited_to("baseline"):
        call, weight = arguments(2, 32, 32, (6, 6))
        assert ops.register_panel() == 0
        assert "neither AVX-512 nor AVX2" in ops.all_ops()["winograd_convolution"].reasons(*call.values())["cpp"][0]
        torch.testing.assert_close(
            ops.winograd_convolution(**call).double(), by_definition(call, weight), rtol=1e-4, atol=1e-5
        )

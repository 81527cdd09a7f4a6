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
    """Of every kernel that this processor can run, the narrower ones too, which it would not choose by itself."""
    if request.param not in ops.instruction_sets():
        pytest.skip(f"no kernel for {request.param} here")
    with ops.limited_to(request.param):
        yield ops.winograd_panel()


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


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_row_does_not_depend_on_its_neighbours(panel, threads):
    """However many there are, and however work is divided among threads."""
    call, _ = arguments(40, 64, 2 * panel, (6, 5), other=True, panel=panel)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = run("cpp", "winograd_convolution", call)
        for rows in (slice(0, 1), slice(3, 10)):
            part = {key: call[key][rows] for key in ("inputs", "other", "out")}
            assert run("cpp", "winograd_convolution", {**call, **part}).equal(together[rows])
    finally:
        torch.set_num_threads(before)


def test_sums_up_in_place(panel):
    call, _ = arguments(3, 32, panel, (9, 9), other=True, panel=panel)
    expected = run("cpp", "winograd_convolution", call)
    with ops.using("cpp"):
        assert ops.winograd_convolution(**{**call, "out": call["other"]}) is call["other"]
    assert call["other"].equal(expected)


def test_nan_and_infinity_come_through_the_relu(panel):
    call, _ = arguments(1, 16, panel, (8, 8), panel=panel)
    call["inputs"][0, 3, 2, 2] = torch.nan
    y = run("cpp", "winograd_convolution", call)
    assert y[0, :, 1:4, 1:4].isnan().all()
    assert y[0, :, 5:, 5:].isfinite().all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda call: {"inputs": call["inputs"].contiguous()}, "not dense with channels last"),
        (lambda call: {"inputs": call["inputs"][:, :4], "kernels": call["kernels"][:, :, :4]}, "in panels of"),
        (lambda call: {key: call[key].double() for key in ("inputs", "kernels", "bias", "out")}, "not float32"),
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


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (16, 16)])
def test_any_size(panel, size):
    call, weight = arguments(3, 48, 96, size, other=True, panel=panel)
    torch.testing.assert_close(
        run("cpp", "winograd_convolution", call).double(), by_definition(call, weight), rtol=1e-5, atol=2e-6
    )


def test_processors_without_vectors_have_no_kernel():
    if not ops.instruction_sets():
        pytest.skip("no compiled kernels")
    with ops.limited_to("baseline"):
        call, weight = arguments(2, 32, 32, (6, 6))
        assert ops.winograd_panel() == 0
        assert "neither AVX-512 nor AVX2" in ops.all_ops()["winograd_convolution"].reasons(*call.values())["cpp"][0]
        torch.testing.assert_close(
            ops.winograd_convolution(**call).double(), by_definition(call, weight), rtol=1e-4, atol=1e-5
        )

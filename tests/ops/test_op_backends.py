"""Every op on every backend gives what its reference gives, on every case and dtype."""

from __future__ import annotations

import pytest
import torch
from ops_support import BACKENDS, CASES, FUNCTIONS, INTERPRETED, assert_agree, label, run, tolerance

from xai_fast import ops

EVERY = [(name, case, dtype) for name, cases in CASES.items() for case in cases for dtype in case.dtypes]


def skip_without(backend, name=None):
    if name is not None and backend not in ops.all_ops()[name].backends:
        pytest.skip(f"{name} needs no {backend} kernel")
    if reason := ops.backends()[backend]:
        pytest.skip(reason)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "case", "dtype"), EVERY, ids=label)
def test_agrees_with_the_reference(backend, name, case, dtype):
    skip_without(backend, name)
    if backend == "triton" and INTERPRETED and (case.workload or case.name == "blocks of blocks"):
        pytest.skip("too slow in the interpreter")
    if has_no_kernel(name, dtype):
        pytest.skip("no kernel of this dtype for this processor")
    arguments = case.arguments(dtype)
    expected = run("reference", name, arguments)
    if only_by_reference(name, arguments):
        with pytest.raises(ops.BackendError, match="spatial axes, not two"):
            run(backend, name, arguments)
        return
    actual = run(backend, name, arguments)
    assert_agree(actual, expected, tolerance(name, arguments, actual.dtype, backend))


def has_no_kernel(name, dtype):
    """Whether the instructions in use do without a kernel, as minimal filtering does without vectors or halves."""
    return name in ("winograd_convolution", "inverted_bottleneck", "gated_pointwise") and ops.register_panel(dtype) == 0


def only_by_reference(name, arguments):
    """Whether kernels, which resize along two axes, refuse."""
    resized = {"cam_reduce": "activations", "blend_maps": "inputs"}.get(name)
    return resized is not None and arguments[resized].dim() != 4


@pytest.mark.parametrize("name", CASES)
def test_every_instruction_set_agrees_with_the_reference(name):
    """Those that this processor has, also the ones it would not choose by itself."""
    skip_without("cpp", name)
    for case, dtype in [(each, dtype) for each in CASES[name] if not each.workload for dtype in each.dtypes]:
        for instructions in ops.instruction_sets()[:-1]:  # the last is what runs above
            with ops.limited_to(instructions):
                if has_no_kernel(name, dtype):
                    continue
                arguments = case.arguments(dtype)
                if only_by_reference(name, arguments):
                    continue
                expected, actual = run("reference", name, arguments), run("cpp", name, arguments)
            assert_agree(actual, expected, tolerance(name, arguments, actual.dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("to", CASES["hide_windows"][0].dtypes, ids=label)
@pytest.mark.parametrize("dtype", CASES["hide_windows"][0].dtypes, ids=label)
def test_hide_windows_converts(backend, dtype, to):
    """Rounding, infinities, subnormal numbers and NaN as torch converts them."""
    skip_without(backend)
    special = [torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 65519.9, 65520.0, 6.1e-5, 6e-8, 2.9e-8, 3.39e38]
    numbers = torch.cat([torch.tensor(special), torch.randn(489, generator=torch.Generator().manual_seed(0))])
    scaled = (numbers * torch.logspace(-3, 3, 4)[:, None]).reshape(2, 2, 500).to(dtype)
    arguments = {
        "inputs": scaled,
        "baseline": scaled.flip(-1),
        "sample": torch.tensor([0, 1, 1]),
        "boxes": torch.tensor([[[0, 2], [100, 300]]] * 3),
        "out": torch.empty(3, 2, 500, dtype=to),
    }
    expected, actual = run("reference", "hide_windows", arguments), run(backend, "hide_windows", arguments)
    if backend == "triton" and to == torch.bfloat16 and INTERPRETED:
        torch.testing.assert_close(actual, expected, rtol=2**-7, atol=1e-40, equal_nan=True)
    else:
        torch.testing.assert_close(actual, expected, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, case) for n, cases in CASES.items() if "cpp" in ops.all_ops()[n].backends for case in cases if case.workload],
    ids=label,
)
def test_thread_count_changes_no_bit(name, case):
    skip_without("cpp")
    arguments = case.arguments(case.dtypes[0])
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run("cpp", name, arguments))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


def test_window_mean_leaves_nothing_where_no_window_is():
    """Beside windows with huge values, one with a tiny value is exact, and uncovered elements are 0."""
    boxes = torch.tensor([[[0, 1], [0, 5]], [[0, 1], [7, 9]], [[0, 1], [2, 4]]])
    values = torch.tensor([1e300, 1.0, -1e300], dtype=torch.float64).reshape(1, 3, 1)
    for backend in ("reference", *BACKENDS):
        if backend in ops.all_ops()["window_mean"].backends and ops.backends()[backend] is None:
            mean = run(backend, "window_mean", {"values": values, "boxes": boxes, "shape": (1, 10)}).flatten()
            assert mean[2:4].eq(0).all()
            assert mean[[5, 6, 9]].eq(0).all()


@pytest.mark.parametrize("border", ["constant", "replicate", "reflect", "circular"])
@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_regions_are_those_of_the_padded_variant(backend, border):
    """The definition in torch's words: paste the patch into a copy of the map, pad that, cut the region out."""
    skip_without(backend)
    generator = torch.Generator().manual_seed(0)
    base, patch = (torch.randn(shape, generator=generator) for shape in ((2, 3, 6, 7), (2, 3, 3, 2)))
    patch_at, at = torch.tensor([[0, 0], [3, 5]]), torch.tensor([[-4, -3], [1, -5]])
    variants = base.flip(0)
    for row, (y, x) in enumerate(patch_at.tolist()):
        variants[row, :, y : y + 3, x : x + 2] = patch[row]
    padded = torch.nn.functional.pad(variants, (5, 5, 5, 5), mode=border)
    expected = torch.stack([image[:, y + 5 :, x + 5 :][:, :9, :8] for image, (y, x) in zip(padded, at, strict=True)])
    arguments = {"base": base, "patch": patch, "patch_at": patch_at, "sample": torch.tensor([1, 0]), "at": at}
    out = torch.empty(2, 3, 9, 8)
    assert torch.equal(run(backend, "region_gather", {**arguments, "out": out, "border": border}), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", CASES["region_gather"][0].dtypes, ids=label)
def test_region_gather_copies_and_rounds_the_fill(backend, dtype):
    """Infinities, subnormal numbers, NaN and signed zeros come through; a fill is rounded as torch rounds it."""
    skip_without(backend)
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0, 6e-8, 2.9e-8, 1e-44]).to(dtype)
    arguments = {"base": special.reshape(1, 1, 7), "patch": None, "patch_at": None, "sample": torch.zeros(1).long()}
    exact = backend == "triton" and INTERPRETED  # its scalars are float32, its bfloat16 is truncated
    for fill in (-0.5, -torch.inf, torch.nan) if exact else (0.1, 65519.9, 1e300, -1e300):
        call = {**arguments, "at": torch.tensor([[-1]]), "out": torch.empty(1, 1, 9, dtype=dtype), "fill": fill}
        expected, actual = run("reference", "region_gather", call), run(backend, "region_gather", call)
        assert_agree(actual, expected, 0.0)
        assert torch.equal(actual.signbit(), expected.signbit())


@pytest.mark.parametrize(
    "name",
    [
        "hide_windows",
        "hide_segments",
        "grid_masks",
        "region_gather",
        "add_noise",
        "path_points",
        "blend_maps",
        "winograd_convolution",
        "inverted_bottleneck",
        "gated_pointwise",
        "pass_bits",
    ],
)
def test_a_graph_that_saved_the_batch_notices_that_it_was_rewritten(name):
    arguments = CASES[name][0].arguments(torch.float32)
    weight = torch.ones((), requires_grad=True)
    product = (FUNCTIONS[name](**arguments) * weight).sum()
    FUNCTIONS[name](**arguments)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()

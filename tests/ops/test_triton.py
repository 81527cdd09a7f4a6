"""Triton kernels without a GPU: interpreted against the references, and compiled within bounds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MAX_REGISTERS = 96

STRIDES = {f"{side}{axis}": "i32" for side in ("in", "base", "out") for axis in ("_row", "0", "1", "2", "3")}
AXES = {"AXES": 3, "AXIS0": -1, "AXIS1": 1, "AXIS2": 2, "AXIS3": 0}

REGION = {"SPACE": 2, "AXIS0": -1, "AXIS1": 0, "AXIS2": 1, "AXIS3": -1, "PATCHED": True}

MASKED = [
    {"SPACE": 2, "AXIS0": -1, "AXIS1": 1, "AXIS2": 2, "AXIS3": -1},
    {"SPACE": 3, "AXIS0": 0, "AXIS1": 1, "AXIS2": 2, "AXIS3": -1},
]


def kernels():
    """Per kernel: its function, the types of its arguments and its constants, as the ops launch it."""
    from xai_fast.ops.add_noise import triton as add_noise
    from xai_fast.ops.blend_maps import triton as blend_maps
    from xai_fast.ops.cam_reduce import triton as cam_reduce
    from xai_fast.ops.grid_masks import triton as grid_masks
    from xai_fast.ops.grid_reduce import triton as grid_reduce
    from xai_fast.ops.hide_segments import triton as hide_segments
    from xai_fast.ops.hide_windows import triton as hide_windows
    from xai_fast.ops.moments import triton as moments
    from xai_fast.ops.path_points import triton as path_points
    from xai_fast.ops.region_gather import triton as region_gather
    from xai_fast.ops.surrogate_normal import triton as surrogate_normal
    from xai_fast.ops.window_mean import triton as window_mean

    integers = {"sample": "*i64", "boxes": "*i64"}
    for source, target in (("fp32", "bf16"), ("bf16", "bf16"), ("fp64", "fp16")):
        pointers = {"inputs": f"*{source}", "baseline": f"*{source}", "out": f"*{target}", **integers}
        yield hide_windows.hide_windows_kernel, {**pointers, **STRIDES}, {**AXES, "BLOCK": hide_windows.BLOCK}
        pointers = {**pointers, "labels": "*i64", "keep": "*u8"}
        yield hide_segments.hide_segments_kernel, {**pointers, **STRIDES}, {"BLOCK": hide_segments.BLOCK}
        share = "fp64" if source == "fp64" else "fp32"
        tables = {"grids": "*u8", "shifts": "*i64", "low": "*i32", "share": f"*{share}"}
        for axes in MASKED:
            yield grid_masks.grid_masks_kernel, {**pointers, **tables}, {**axes, "BLOCK": grid_masks.BLOCK}
        numbers = dict.fromkeys(("sample", "key", "draw", "reference"), "*i64") | {"scale": "*fp64", "alpha": "*fp64"}
        pointers = {"inputs": f"*{source}", "baseline": f"*{source}", "out": f"*{target}", **numbers}
        yield add_noise.add_noise_kernel, {**pointers, "seed": "u64"}, {"BLOCK": add_noise.BLOCK}
        blended = {**pointers, "maps": f"*{share}", "number": "*i64"}
        yield blend_maps.blend_maps_kernel, blended, {"BLOCK": blend_maps.BLOCK}
        yield path_points.path_points_kernel, pointers, {"BLOCK": path_points.BLOCK}
        sums = {"values": f"*{source}", "weight": "*fp64", "group": "*i64", "total": "*fp64", "squares": "*fp64"}
        for total, squares in ((True, False), (True, True)):
            constants = {"WEIGHTED": squares, "TOTAL": total, "SQUARES": squares, "BLOCK": moments.BLOCK}
            yield moments.moments_kernel, sums, constants
    pointers = {"keep": "*u8", **dict.fromkeys(("weights", "other", "sums"), "*fp64")}
    for gram in (True, False):
        constants = {"GRAM": gram, "ROWS": surrogate_normal.ROWS, "TILE": surrogate_normal.TILE}
        yield surrogate_normal.sum_products_kernel, pointers, constants
    yield from kernels_for_models()
    sums = {"grids": "*u8", "bin": "*i64", "weights": "*fp64", "bins": "*fp64"}
    yield grid_reduce.grid_reduce_kernel, sums, {"BLOCK": grid_reduce.BLOCK}
    for dtype in ("fp32", "bf16", "fp64"):  # copied, so that fp16 is bf16
        pointers = {name: f"*{dtype}" for name in ("base", "patch", "out")}
        pointers |= {name: "*i64" for name in ("patch_at", "sample", "at")}
        for border in region_gather.BORDERS.values():
            constants = {**REGION, "BORDER": border, "BLOCK": region_gather.BLOCK}
            yield region_gather.region_gather_kernel, {**pointers, "fill": "fp64"}, constants
    for dtype in ("fp32", "fp64"):
        pointers = {"values": f"*{dtype}", "boxes": "*i64", "out": f"*{dtype}"}
        yield window_mean.window_mean_kernel, pointers, {"BLOCK": window_mean.BLOCK}
        sizes = {"RELU": True, "CHANNELS": cam_reduce.CHANNELS, "PIXELS": cam_reduce.PIXELS}
        pointers = {"activations": f"*{dtype}", "weights": f"*{dtype}", "maps": f"*{dtype}"}
        yield cam_reduce.sum_channels_kernel, pointers, sizes
        yield cam_reduce.resize_kernel, {"maps": f"*{dtype}", "out": f"*{dtype}"}, {"BLOCK": cam_reduce.BLOCK}


def kernels_for_models():
    """Those that run between a model's steps, or over its weights."""
    from xai_fast.ops.bias_relu import triton as bias_relu
    from xai_fast.ops.byte_hash import triton as byte_hash

    for dtype in ("fp32", "bf16", "fp16", "fp64"):
        pointers = dict.fromkeys(("values", "bias", "other", "out"), f"*{dtype}")
        for summed, last in ((True, True), (True, False), (False, True)):
            tile = {"ROWS": bias_relu.TILE // bias_relu.COLUMNS, "COLUMNS": bias_relu.COLUMNS}
            yield bias_relu.bias_relu_kernel, pointers, {"SUMMED": summed, "LAST": last, **tile}
    hashed = {"at": "*i64", "left": "*i32", "base": "i64", "words": "*i64"}
    constants = {"FACTOR": byte_hash.FACTOR % 2**64, "TURN": byte_hash.TURN}
    yield byte_hash.block_hash_kernel, hashed, {**constants, "STEPS": byte_hash.STEPS, "LANES": byte_hash.LANES}


STRIDED = re.compile(
    r"(in|base|out|label|patch)(_row|_?\d|_channel|_y|_x)|(row_|sample_|window_|target_|channel_|column_)?stride\d?"
)


def compiled(kernel, types, constants, capability, strides="i32"):
    """`strides`: of which integers they are; Triton takes wider ones for larger numbers by itself."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = types | {name: strides for name in kernel.arg_names if STRIDED.fullmatch(name)}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


def resources(cubin, directory):
    """What the assembler reports: registers per thread and bytes of stack and local memory (where spills go)."""
    path = directory / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("this Triton bundles no cuobjdump")
    report = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    return {name: int(re.search(rf"{name}:(\d+)", report).group(1)) for name in ("REG", "STACK", "LOCAL")}


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(("capability", "strides"), [(80, "i32"), (90, "i32"), (100, "i32"), (90, "i64")])
def test_kernels_compile_without_spilling(capability, strides, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for kernel, types, constants in kernels():
        used = resources(compiled(kernel, types, constants, capability, strides).asm["cubin"], tmp_path)
        assert used["REG"] <= MAX_REGISTERS, (kernel, types, used)
        assert used["STACK"] == used["LOCAL"] == 0, (kernel, types, used)


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="the kernels run in this very session")
@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["test_op_table"], "triton"),
        (["test_op_backends"], "triton and (float32 or bfloat16 or surrogate_normal or grid_reduce)"),
        (
            ["test_byte_hash", "test_noise", "test_path_points", "test_moments", "test_surrogate_normal", "test_grids"],
            "triton",
        ),
    ],
    ids=["every layout", "every case", "what is particular to one op"],
)
def test_kernels_interpreted_agree_with_the_references(names, chosen):
    """Runs tests of all backends again where Triton's interpreter stands in for the device."""
    tests = [Path(__file__).with_name(f"{name}.py") for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"[1-9]\d* passed", done.stdout), done.stdout[-4000:]

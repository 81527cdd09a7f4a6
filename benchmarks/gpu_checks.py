"""What `gpu.py` checks: the build, and ops, plans and methods on the device against slow references on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from gpu import Item, Where

TOP = Path(__file__).resolve().parents[1]
for folder in ("tests", "tests/ops", "tests/methods"):
    sys.path.insert(0, str(TOP / folder))

TARGETS = [1, 3, 0]


def machine(where: Where) -> dict[str, Any]:
    """What measures here."""
    from xai_fast import ops

    found: dict[str, Any] = {"backends": ops.backends(), "threads": torch.get_num_threads()}
    with_triton = ops.backends()["triton"] is None
    if with_triton:
        import triton

        found["triton"] = triton.__version__
    if where.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        found |= {"device": about.name, "memory_bytes": about.total_memory, "cuda": torch.version.cuda}
        found |= {"capability": f"{about.major}.{about.minor}", "multiprocessors": about.multi_processor_count}
        found |= {"cudnn": torch.backends.cudnn.version(), "precision": precision()}
    return found


def precision() -> dict[str, str]:
    """In what convolutions and products of float32 are computed, by torch's newer names, which never raise."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    return {"convolutions": conv.fp32_precision, "products": matmul.fp32_precision}


def in_float32(where: Where) -> None:
    """What is checked against float64 is computed in float32: torch rounds convolutions to TF32 unless it is told."""
    if where.device == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"


def build(where: Where, _part: str) -> Iterator[Item]:
    """Compiles the kernels into the tree: those for GPUs where nvcc is."""

    def run() -> dict[str, Any]:
        nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
        environment = {**os.environ, "XAI_FAST_CUDA": "1" if nvcc else "0"}
        began = time.time()
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=TOP,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout + done.stderr)[-1500:]
        return {"ok": done.returncode == 0, "nvcc": nvcc, "seconds": time.time() - began, "said": said}

    yield "build", run
    yield "machine", lambda: machine(where)


def ops(where: Where, _part: str) -> Iterator[Item]:
    """Every op, backend and case, the dtypes in turn; workloads and those that round in every dtype."""
    from ops_support import CASES

    from xai_fast import ops as every

    in_float32(where)
    yield "machine", lambda: machine(where)
    backends = ("triton", "cuda") if where.device == "cuda" else ("cpp",)
    for name, cases in CASES.items():
        for backend in backends:
            if backend not in every.all_ops()[name].backends or every.backends()[backend] is not None:
                continue
            for number, case in enumerate(cases[:4] if where.dry else cases):
                chosen = case.dtypes if case.workload and not where.dry else [case.dtypes[number % len(case.dtypes)]]
                for dtype in chosen:
                    label = f"{name}, {case.name}, {str(dtype).removeprefix('torch.')}, {backend}"
                    yield label, lambda name=name, case=case, dtype=dtype, b=backend: _op(name, case, dtype, b)


def _op(name: str, case: Any, dtype: torch.dtype, backend: str) -> dict[str, Any]:
    from ops_support import run, tolerance

    from xai_fast.ops import BackendError

    arguments = case.arguments(dtype)
    expected = run("reference", name, arguments)
    try:
        actual = run(backend, name, arguments)
    except BackendError as error:
        return {"refused": str(error).splitlines()[-2 if "\n" in str(error) else -1].strip()}
    allowed = tolerance(name, arguments, actual.dtype, backend)
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    off = (actual.double() - expected.double()).abs()[~same]
    largest = off.max().item() if off.numel() else 0.0
    return {"ok": actual.shape == expected.shape and largest <= allowed, "off": largest, "allowed": allowed}


def plans(where: Where, _part: str) -> Iterator[Item]:
    """Every plan against the plain dense one on the CPU, in float64 and in float32."""
    in_float32(where)
    possible = {"Occlusion": ("dense", "local"), "AblationCAM": ("dense", "tail"), "GradCAM": ("dense", "tail")}
    for method in _subjects(where):
        for plan, dtype in itertools.product(possible.get(method, ("dense",)), (torch.float64, torch.float32)):
            label = f"{method}, {plan}, {str(dtype).removeprefix('torch.')}"
            yield label, functools.partial(_plan, where, method, plan, dtype)
    yield "Occlusion, fast", functools.partial(_plan, where, "Occlusion", "dense", torch.float32, mode="fast")


def _subjects(where: Where) -> dict[str, Any]:
    import xai_fast as xf

    layer = "layer1" if where.dry else "layer4"  # of 64 or 512 channels, each of which is ablated

    return {
        "Occlusion": lambda engine: xf.Occlusion(engine, window=16, stride=8),
        "AblationCAM": lambda engine: xf.AblationCAM(engine, layer=layer),
        "GradCAM": lambda engine: xf.GradCAM(engine, layer=layer),
        "IntegratedGradients": lambda engine: xf.IntegratedGradients(engine, n_steps=5),
    }


def _plan(where: Where, method: str, plan: str, dtype: torch.dtype, mode: str = "exact") -> dict[str, Any]:
    import xai_fast as xf

    size = 32 if where.dry else 64
    truth, target = _truth(where, method, size)
    there = _network("resnet18").to(where.device, dtype)
    engine = xf.Engine(there, plan=plan, prepare=True, mode=mode)
    inputs = _photos(2, size).to(where.device, dtype)
    actual = _subjects(where)[method](engine).attribute(inputs, target.to(where.device)).cpu().double()
    off = ((actual - truth).abs().max() / truth.abs().max()).item()
    allowed = 0.1 if mode == "fast" else 1e-9 if dtype is torch.float64 else 1e-4
    return {"ok": off <= allowed, "off": off, "allowed": allowed}


@functools.cache
def _truth(where: Where, method: str, size: int) -> tuple[Tensor, Tensor]:
    """The map by the plain dense plan on the CPU in float64, and the classes that it explains."""
    import xai_fast as xf

    model, x = _network("resnet18"), _photos(2, size)
    target = model(x).argmax(1)
    return _subjects(where)[method](xf.Engine(model.double(), plan="dense")).attribute(x.double(), target), target


def methods(where: Where, _part: str) -> Iterator[Item]:
    """Every method, under all its settings, against the paper's sums in float64 on the CPU."""
    in_float32(where)
    from table import CASES

    cases = CASES[::12] if where.dry else CASES
    for number, case in enumerate(cases):
        for dtype in (torch.float64, torch.float32):
            label = f"{case}, {number}, {str(dtype).removeprefix('torch.')}"
            yield label, lambda case=case, dtype=dtype: _method(where, case, dtype)


def _method(where: Where, case: Any, dtype: torch.dtype) -> dict[str, Any]:
    from subjects import Small, shared, signals

    from xai_fast.engine import tiers

    Small.attends = case.needs_attention
    try:
        expected = case.expected(shared(torch.float64), signals(dtype=torch.float64), TARGETS)
        model, inputs = shared(dtype), signals(dtype=dtype)
        with torch.no_grad():
            score = model(inputs).abs().max().item()
        with tiers.assuming("prepared"):
            there, moved = _there(case, where.device), model.to(where.device)
            try:
                answer = there.on(moved).attribute(inputs.to(where.device), TARGETS, **there.call)
            finally:
                model.to("cpu")
    finally:
        Small.attends = False
    off = (answer.cpu().double() - expected.double()).abs().max().item()
    largest = expected.abs().max().item()
    # A GPU adds up in another order than the replica does, in float64 as well.
    allowed = 1e-9 * max(largest, score) if dtype is torch.float64 else 2e-5 * max(largest, score)
    on_device = answer.device.type == where.device
    return {"ok": bool(off <= allowed and on_device), "off": off, "allowed": allowed}


def _there(case: Any, device: str) -> Any:
    """The case, with what its settings hold on the device."""

    def moved(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}

    wraps = None if case.wraps is None else _there(case.wraps, device)
    return dataclasses.replace(case, settings=moved(case.settings), call=moved(case.call), wraps=wraps)


def _network(name: str) -> nn.Module:
    from networks import awakened

    return awakened(name)


def _photos(n: int, size: int) -> Tensor:
    from networks import photos

    return photos(n, size)
